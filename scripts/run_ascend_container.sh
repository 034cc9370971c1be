#!/usr/bin/env bash
# Start a container with Ascend cards, with the docker command of the ModelArts guide.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: run_ascend_container.sh [OPTION ...] IMAGE [COMMAND ...]

Starts IMAGE in the background with the chosen Ascend cards, the host's driver and a working
folder; the default COMMAND is bash. Enter it with: docker exec -it wav2lip-npu bash

  --cards LIST               indices of cards, as in 0 or 0,2 or 0-7 (default: 0)
  --name NAME                the container's name (default: wav2lip-npu)
  --work-dir DIR             folder of the host to work in (default: the current one)
  --container-work-dir DIR   its path in the container (default: /workspace)
  --volume HOST:CONTAINER    another folder, for example of a data set; can be repeated
  --shm-size SIZE            shared memory for processes that load data (default: 32g)
  --net NETWORK              docker's network (default: bridge)
  --dry-run                  print the docker command and stop

If several users share the container, block its access to the host's metadata (docs/ascend.md):
  sudo iptables -I DOCKER-USER -d 169.254.169.254 -j DROP
TEXT
}

fail() {
  echo "run_ascend_container.sh: error: $1" >&2
  exit 2
}

cards=0
name=wav2lip-npu
work_dir=$PWD
container_work_dir=/workspace
volumes=()
shm_size=32g
net=bridge
dry_run=false

while [[ ${1-} == -* ]]; do
  case $1 in
    --help | -h) usage; exit ;;
    --dry-run) dry_run=true; shift; continue ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  (($# > 1)) || fail "$1: needs a value; see --help"
  case $1 in
    --cards) cards=$2 ;;
    --name) name=$2 ;;
    --work-dir) work_dir=$2 ;;
    --container-work-dir) container_work_dir=$2 ;;
    --volume) volumes+=("$2") ;;
    --shm-size) shm_size=$2 ;;
    --net) net=$2 ;;
    *) fail "$1: no such option; see --help" ;;
  esac
  shift 2
done
(($#)) || fail "no IMAGE given; see --help"

devices=()
IFS=, read -ra ranges <<<"$cards"
for range in "${ranges[@]}"; do
  [[ $range =~ ^([0-9]{1,3})(-([0-9]{1,3}))?$ ]] ||
    fail "--cards $cards: must be indices, as in 0 or 0,2 or 0-7"
  first=$((10#${BASH_REMATCH[1]}))
  last=$((10#${BASH_REMATCH[3]:-$first}))
  ((first <= last)) || fail "--cards $cards: $range is in descending order"
  for ((card = first; card <= last; card++)); do
    devices+=("/dev/davinci$card")
  done
done
((${#devices[@]})) || fail "--cards: needs at least one card"
devices+=(/dev/davinci_manager /dev/devmm_svm /dev/hisi_hdc)

[[ -d $work_dir ]] || fail "--work-dir $work_dir: no such folder"
work_dir=$(cd -- "$work_dir" && pwd)
[[ $work_dir$container_work_dir != *:* ]] || fail "$work_dir: docker cannot mount a path with a colon"

npu_smi=$(command -v npu-smi || echo /usr/local/bin/npu-smi)
host_files=("$npu_smi" /usr/local/dcmi /etc/ascend_install.info /sys/fs/cgroup /usr/local/Ascend/driver)

command=(docker run -itd)
for device in "${devices[@]}"; do
  command+=("--device=$device")
done
for file in "${host_files[@]}"; do
  mount=$file:$file
  [[ $file != /sys/* ]] || mount+=:ro
  command+=(-v "$mount")
done
command+=(--shm-size "$shm_size" "--net=$net")
for volume in "$work_dir:$container_work_dir" "${volumes[@]+"${volumes[@]}"}"; do
  command+=(-v "$volume")
done
command+=(-w "$container_work_dir" --name "$name" "$@")
(($# > 1)) || command+=(bash)

if $dry_run; then
  printf '%q' "${command[0]}"
  printf ' %q' "${command[@]:1}"
  echo
  exit
fi
for file in "${devices[@]}" "${host_files[@]}"; do  # docker would create missing ones as folders
  [[ -e $file ]] || fail "$file: not on this host; is the driver installed? (npu-smi info)"
done
exec "${command[@]}"
