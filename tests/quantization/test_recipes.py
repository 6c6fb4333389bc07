from __future__ import annotations

import pytest

from resnet_edge.errors import UsageError
from resnet_edge.quantization.recipes import RECIPES, find_recipe, load_recipes


def test_the_table_of_recipes_and_formats():
    everywhere = ("tflite", "onnx", "savedmodel")
    assert {name: recipe.formats for name, recipe in RECIPES.items()} == {
        "fp16": everywhere,
        "int8": everywhere,
        "int8-per-tensor": everywhere,
        "int16x8": ("tflite", "savedmodel"),
        "int8-weights": everywhere,
    }


def test_a_pair_outside_the_table_is_refused():
    RECIPES["int16x8"].check_format("tflite")
    with pytest.raises(UsageError, match="cannot be written as onnx") as error:
        RECIPES["int16x8"].check_format("onnx")
    assert error.value.exit_code == 2


@pytest.mark.parametrize("name", RECIPES)
def test_only_int8_activations_have_integer_inputs(name):
    expected = (
        {"float32", "int8", "uint8"} if name.startswith("int8") and name != "int8-weights" else {"float32"}
    )
    assert set(RECIPES[name].io_types) == expected
    if len(expected) == 1:
        with pytest.raises(UsageError):
            RECIPES[name].check_io("uint8")


def test_calibration_is_needed_for_integer_activations_only():
    assert [name for name, recipe in RECIPES.items() if recipe.integer] == [
        "int8",
        "int8-per-tensor",
        "int16x8",
    ]


def write(folder, text):
    path = folder / "recipes.toml"
    path.write_text(text)
    return path


def test_a_users_recipe_changes_what_it_names_and_keeps_the_rest(tmp_path):
    path = write(
        tmp_path,
        """
        [plain]
        base = "int8"
        bias_correction = false
        formats = ["tflite"]
        [plainer]
        base = "plain"
        weight_range = "mse"
        description = "as plain, but for the range"
        """,
    )
    recipes = load_recipes(path)
    assert set(recipes) == {*RECIPES, "plain", "plainer"}
    plainer = recipes["plainer"]
    assert (plainer.base, plainer.arithmetic, plainer.formats) == ("int8", "int8", ("tflite",))
    assert (plainer.bias_correction, plainer.weight_range, plainer.per_channel) == (False, "mse", True)
    assert load_recipes() == RECIPES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[mine]\nbase = "int8"\nobserver = "mse"', "unknown field 'observer'"),
        ('[mine]\nbase = "int8"\narithmetic = "int4"', "unknown field 'arithmetic'"),
        ('[mine]\nbase = "int4"', "unknown recipe 'int4'"),
        ("[mine]\nper_channel = true", "unknown recipe 'none'"),
        ('[mine]\nbase = "int8"\nper_channel = "yes"', "per_channel cannot be 'yes'"),
        ('[mine]\nbase = "int8"\nweight_range = "min"', "weight_range cannot be 'min'"),
        ('[mine]\nbase = "int8"\nformats = []', "formats cannot be"),
        ('[mine]\nbase = "int8"\nformats = [1]', "formats cannot be"),
        ('[mine]\nbase = "int16x8"\nformats = ["onnx"]', "cannot be written as onnx"),
        ('[int8]\nbase = "int8"', "'int8' cannot be a recipe"),
        ('["../x"]\nbase = "int8"', "cannot be a recipe"),
        ('base = "int8"', "'base' cannot be a recipe"),
        ("[mine", "cannot be read"),
    ],
)
def test_a_users_mistake_is_named(tmp_path, text, found):
    with pytest.raises(UsageError) as error:
        load_recipes(write(tmp_path, text))
    assert found in error.value.what


def test_a_missing_file_and_an_unknown_name(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipes(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="unknown recipe 'int9'"):
        find_recipe("int9", RECIPES)
