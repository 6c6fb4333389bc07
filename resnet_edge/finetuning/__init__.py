"""Fine-tuning: the graph as a tf_keras model, its training, and what comes back from it."""
