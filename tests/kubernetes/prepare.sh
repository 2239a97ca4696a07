#!/bin/bash
# Builds what `make test-kubernetes` needs into the folder $1, and skips what is already there: the programs of Kubernetes,
# CoreDNS and the Training Operator from Go modules, and the image of deploy/Dockerfile with buildah, on bases that
# debootstrap makes in the official ones' place.
# Needs root, Debian 12, Go, and the Debian packages of $NEEDED.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
python=$2
export KUBERNETES_VERSION=1.34.4

programs() {
  local version=k8s.io/component-base/version
  local flags="-s -w -X $version.gitVersion=v$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=34"
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    [ -x "$cache/bin/$name" ] && continue
    (cd "$here/programs" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$cache/bin/" "k8s.io/kubernetes/cmd/$name")
  done
}

names() {
  [ -x "$cache/bin/names" ] && return
  (cd "$here/names" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$cache/bin/names" .)
}

# The Training Operator with its own manifests, in an image of the name that they use.
operator() {
  [ -e "$cache/training-operator.tar" ] && return
  local module=github.com/kubeflow/training-operator
  local program=$cache/operator/manager
  (cd "$here/operator" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$program" "$module/cmd/training-operator.v1")
  rm -rf "$cache/operator/manifests"
  cp -r --no-preserve=mode "$(cd "$here/operator" && go list -m -f '{{.Dir}}' "$module")/manifests" "$cache/operator/"
  local image
  image=$("$cache/bin/kubectl" kustomize "$cache/operator/manifests/overlays/standalone" | sed -n 's/^ *image: //p')
  image_of_program "$program" /manager "$image" training-operator
}

# $1: variant of debootstrap, $2: the image's name. Python comes from this machine, as in tests/image.
base() {
  local root=$cache/$1
  b inspect --type image "$2" > /dev/null 2>&1 && return
  rm -rf "$root"
  debootstrap --variant="$1" --include=ca-certificates,libssl3,libffi8,libsqlite3-0,libreadline8,libnsl2,libuuid1,libexpat1 \
    bookworm "$root" > "$cache/$1.log"
  local prefix
  prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
  cp -a "$prefix/lib/." "$root/usr/local/lib/"
  cp -a "$prefix/include/." "$root/usr/local/include/"
  find "$root/usr/local/lib/python3.10/site-packages" -mindepth 1 -maxdepth 1 ! -name 'pip*' -exec rm -rf {} +
  cp "$prefix/bin/python3.10" "$root/usr/local/bin/"
  ln -sf python3.10 "$root/usr/local/bin/python3"
  ln -sf python3.10 "$root/usr/local/bin/python"
  printf '#!/usr/local/bin/python\nfrom pip._internal.cli.main import main\nmain()\n' > "$root/usr/local/bin/pip"
  chmod +x "$root/usr/local/bin/pip"
  # The settings with which this machine reaches its package index.
  [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  chroot "$root" ldconfig
  local container
  container=$(b from scratch)
  b add --quiet "$container" "$root" /
  b config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$container"
  b commit --quiet --rm "$container" "$2"
  rm -rf "$root"
}

image() {
  (cd "$repository" && b bud --quiet --pull-never --isolation chroot --layers --ignorefile deploy/Dockerfile.dockerignore \
    --build-arg PYTHON=3.10 --build-arg DEBIAN=bookworm --build-arg LOCKS=-tfx1.16 \
    -f deploy/Dockerfile --target "$1" -t "localhost/autoencoder:$1" .)
  export_image "localhost/autoencoder:$1" "$1"
}

# Each image as an archive that containerd imports, made again only if the image changed.
export_image() {
  local id
  id=$(b inspect --type image --format '{{.FromImageID}}' "$1")
  [ "$(cat "$cache/$2.id" 2> /dev/null)" = "$id" ] && [ -e "$cache/$2.tar" ] && return
  rm -f "$cache/$2.tar"
  b push --quiet "$1" "docker-archive:$cache/$2.tar:$1"
  echo "$id" > "$cache/$2.id"
}

pause() {
  [ -e "$cache/pause.tar" ] && return
  (cd "$here/programs" && CGO_ENABLED=0 go build -trimpath -o "$cache/pause" pause.go)
  image_of_program "$cache/pause" /pause localhost/pause:1 pause
}

# $1: a program without libraries, $2: its place in the image, $3: the image's name, $4: that of the archive.
image_of_program() {
  local container
  container=$(b from scratch)
  b copy --quiet "$container" "$1" "$2"
  b config --entrypoint "[\"$2\"]" "$container"
  b commit --quiet --rm "$container" "$3"
  export_image "$3" "$4"
}

b() { buildah --root "$cache/buildah" --runroot "$cache/buildah-run" --storage-driver overlay "$@"; }

step() { local from=$SECONDS; "$@"; echo "$*: $((SECONDS - from)) s"; }

step programs
step names
step pause
step operator
step base minbase docker.io/library/python:3.10-slim-bookworm
step base buildd docker.io/library/python:3.10-bookworm
step image serving
