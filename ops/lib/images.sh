# shellcheck shell=bash disable=SC2016  # the $(…) in single quotes are apt's own format fields
# What ops/images stands on: content keys, the package mirror of this host, quiet builds. Sourced, never run.

say() { printf '%s %4ds  %s\n' "images:" "$SECONDS" "$*" >&2; }

# One sentence that says what failed and what to do about it.
die() {
  printf 'images: error: %s\n' "$*" >&2
  exit 1
}

# key_of TEXT... -- PATH...: a hash of the texts and of every file below the paths: names, modes and content.
key_of() {
  local texts=()
  while [[ $# -gt 0 && $1 != -- ]]; do texts+=("$1") && shift; done
  shift
  {
    printf '%s\n' "${texts[@]}"
    [[ $# -eq 0 ]] || (cd "$ROOT" && find "$@" -type f -printf '%m %p\n' | LC_ALL=C sort)
    [[ $# -eq 0 ]] || (cd "$ROOT" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -c1-32
}

label_of() { docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$1" 2>/dev/null || true; }
id_of() { docker image inspect --format '{{.Id}}' "$1"; }

# fresh IMAGE KEY: is the image here, and built from these inputs?
fresh() { [[ ${MEDFORGE_REBUILD:-} != 1 && $(label_of "$1") == "$2" ]]; }

# The reference that the platform's configuration pins, e.g. medforge-pack-default@sha256:0f…
print_reference() { printf '%s@%s\n' "${1%:*}" "$(id_of "$1")"; }

# quietly NAME COMMAND...: the command's output goes to a log; a failure shows its end.
quietly() {
  local name=$1 log=$CACHE/log/$1.log
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    die "cannot build $name: see the lines above and $log; correct the cause and run ops/images again"
  fi
}

# build NAME CONTEXT OPTION...: docker build with what this host needs to reach its package sources.
# Host networking, because resolvers on a loopback address and proxies bound to the host work there and only there.
build() {
  local name=$1 context=$2 proxy
  shift 2
  local arguments=()
  for variable in PIP_INDEX_URL NPM_CONFIG_REGISTRY; do
    [[ -z ${!variable:-} ]] || arguments+=(--build-arg "$variable=${!variable}")
  done
  for variable in http_proxy https_proxy no_proxy; do
    proxy=${!variable:-}
    [[ -n $proxy || $variable != http_proxy ]] || proxy=$(apt_option Acquire::http::Proxy)
    [[ -z $proxy ]] || arguments+=(--build-arg "$variable=$proxy")
  done
  # With BuildKit: the builder that can see local images, and an image id that is the image's own.
  BUILDX_BUILDER=default BUILDX_NO_DEFAULT_ATTESTATIONS=1 \
    quietly "$name" docker build --network host "${arguments[@]}" "$@" "$context"
}

apt_option() {
  local value=
  ! command -v apt-config >/dev/null || eval "$(apt-config shell value "$1")"
  printf '%s' "${value/#DIRECT/}"
}

# on_host PACKAGE...: installs what is missing on the host itself.
on_host() {
  local missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  [[ $EUID -eq 0 ]] || die "cannot install ${missing[*]}: run as root, or install them first"
  say "installing on this host: ${missing[*]}"
  apt_lists
  quietly host-packages env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

apt_lists() {
  [[ -n $(apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' 2>/dev/null | xargs -r ls -d 2>/dev/null) ]] ||
    quietly apt-update apt-get update
}

# mirror_lines: apt's source lines for the base image, from the host's own apt configuration: the mirrors of the host's
# distribution, with its security suite. MEDFORGE_APT_MIRROR and MEDFORGE_APT_SUITE override what is found.
mirror_lines() {
  local distribution suite mirror security components=main
  distribution=$(. /etc/os-release && printf '%s' "$ID")
  suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  [[ $distribution != ubuntu ]] || components='main universe'
  mirror=${MEDFORGE_APT_MIRROR:-$(apt_site "$suite")}
  [[ -n $mirror ]] || die "cannot find a package mirror in this host's apt configuration: set MEDFORGE_APT_MIRROR and MEDFORGE_APT_SUITE"
  security=$(apt_site "$suite-security")
  if [[ -n ${MEDFORGE_APT_SUITE:-} ]]; then
    suite=$MEDFORGE_APT_SUITE
  elif [[ $distribution == debian ]] && has_suite "$mirror" trixie; then
    suite=trixie
  fi
  printf 'deb %s %s %s\n' "$mirror" "$suite" "$components"
  if has_suite "$mirror" "$suite-updates"; then printf 'deb %s %s %s\n' "$mirror" "$suite-updates" "$components"; fi
  if [[ -n $security ]] && has_suite "$security" "$suite-security"; then
    printf 'deb %s %s %s\n' "$security" "$suite-security" "$components"
  fi
}

# The address under which this host's apt knows a suite of its own distribution.
apt_site() {
  local wanted=$1
  apt-get indextargets --format '$(RELEASE) $(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$wanted" '$1 == suite && ($2 == "Debian" || $2 == "Ubuntu") { print $3; exit }' | sed 's|/$||'
}

# apt's own downloader, so that its proxies, certificates and transports apply.
has_suite() {
  local scratch found=1
  scratch=$(mktemp -d)
  /usr/lib/apt/apt-helper download-file "$1/dists/$2/InRelease" "$scratch/release" >/dev/null 2>&1 && found=0
  rm -rf "$scratch"
  return "$found"
}
