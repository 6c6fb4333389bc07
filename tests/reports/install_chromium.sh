#!/bin/sh
# Put a headless Chromium into the folder $1, to be started as $1/chromium: the machine's own, or Debian's with all that
# it needs, unpacked there without root and without a change to the machine. Fails, saying why, where neither is to be had.
set -eu
mkdir -p "$1"
cd "$1"
here=$PWD

for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  if own=$(command -v "$name"); then
    ln -sf "$own" chromium
    exit
  fi
done
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "no Chromium: it is not on the PATH, and this is no Debian to take it from" >&2
  exit 1
fi

# A state of our own, in which nothing is installed, makes apt fetch everything that is needed and nobody else's lock.
rm -rf apt root
mkdir -p apt/lists/partial apt/archives/partial root
touch apt/status
private_apt() {
  apt-get -qq -o Dir::State="$here/apt" -o Dir::State::lists="$here/apt/lists" -o Dir::State::status="$here/apt/status" \
    -o Dir::Cache="$here/apt" -o APT::Sandbox::User= -o Acquire::Retries=3 "$@"
}
private_apt update
private_apt install --yes --no-install-recommends --download-only chromium-headless-shell fonts-roboto-unhinted >/dev/null

for package in apt/archives/*.deb; do
  case ${package##*/} in
    libc6_*) ;; # must fit the system's loader, so it is the system's
    libllvm* | libz3-* | libgl1-mesa-dri_*) ;; # a graphics card's, half of the size
    *) dpkg-deb --extract "$package" root ;;
  esac
done
rm -rf apt

cat >fonts.conf <<END
<?xml version="1.0"?>
<fontconfig>
  <dir>$here/root/usr/share/fonts</dir>
  <cachedir>$here/fontconfig</cachedir>
  <match><edit name="family" mode="append_last"><string>Roboto</string></edit></match>
</fontconfig>
END
libraries=$(find "$here/root" -name '*.so*' -exec dirname {} + | sort -u | paste -sd: -)
cat >chromium <<END
#!/bin/sh
export FONTCONFIG_FILE='$here/fonts.conf' LD_LIBRARY_PATH='$libraries'
exec '$here/root/usr/lib/chromium/chromium-headless-shell' "\$@"
END
chmod +x chromium
./chromium --version
