#!/usr/bin/env bash
# Cloud TPU slices: create, set up, run, watch, delete. `--help` tells how, docs/tpu.md all of it.
#
# Everything that acts or asks goes through `call`, which prints it under --dry-run. What a worker
# does is one of the functions worker_*: their text is sent over ssh and run by the worker's bash.
set -euo pipefail

readonly PYTHON=3.12 UV=0.13.9 # what the workers install: the newest that the tests cover
readonly PREEMPTED=143         # how `xlmjax train` ends when it was asked to stop
readonly TRY_AGAIN=75          # and when it hung, lost another worker, or could not reach storage
readonly INTERRUPTED=130       # and by Ctrl-C; any other code above 128: a signal killed it
readonly SETTINGS=(name project zone type runtime slices spot bucket data commit network subnetwork
  service_account)
readonly FIXED=(type runtime slices spot network subnetwork service_account) # once it is created
readonly OPTIONS=(env_file worker slice lines attempts poll)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name='' project='' zone='' type='' runtime='' slices='' spot='' bucket='' data='' commit=''
network='' subnetwork='' service_account=''
env_file='' worker='' slice=0 lines='' attempts=10 poll=${LAUNCH_POLL_SECONDS:-30}
dry_run=false yes=false follow=false
arguments=() problems=()
state_root=${XDG_STATE_HOME:-${HOME:?}/.local/state}/xlmjax

usage() {
  cat <<'END'
usage: ./launch_tpu.sh COMMAND [--SETTING=VALUE ...] [-- ARGUMENTS]

  create                 ask for the TPU (a queued resource) and wait until it is there
  setup                  install the commit, its packages and --data on every worker
  run -- ARGUMENTS       start `xlmjax train ARGUMENTS` on every worker, detached
  status                 the queued resource; the run of every worker and its last line
  logs                   the log of --worker=0, with --follow, or the tails of --worker=all
  watch [-- ARGUMENTS]   keep the run going: create, set up, start again after preemption
  ssh [-- COMMAND]       a shell on --worker=0, or a command there or on --worker=all
  delete                 remove the TPU with its queued resource; asks, unless --yes

settings: flags, or lines such as ZONE=us-central2-b of --env-file=FILE (flags win); what create
and setup were given is remembered
  --name --project --zone        which TPU: all commands need these
  --type=v4-32                   accelerator type of a slice
  --slices=1  --spot             number of slices; interruptible and cheaper
  --runtime=VERSION              TPU software (default: by the type)
  --network --subnetwork --service-account   as gcloud takes them
  --commit=COMMIT                what to install (default: HEAD; run, watch: what was set up)
  --data=gs://BUCKET/FOLDER      copied to data/ beside the code of every worker
  --bucket=gs://BUCKET           run: adds --workdir=gs://BUCKET/NAME where ARGUMENTS have none

options
  --worker=0 --slice=0 --lines=N --follow   logs, ssh
  --attempts=10 --poll=30        restarts without progress, looks that fail in a row; seconds
                                 between looks
  --dry-run                      print the commands, run nothing
Exit code: 0, 1 where something failed, 2 where a setting is missing or wrong; watch: the run's.
END
}

say() { printf 'launch_tpu: %s\n' "$*" >&2; }
fail() { say "$*" && exit 1; }
problem() { problems+=("$*"); }

stop_on_problems() {
  local text
  ((${#problems[@]})) || return 0
  for text in "${problems[@]}"; do say "$text"; done
  exit 2
}

# Print the arguments as one line that any shell reads back as the same arguments.
quoted() {
  local LC_ALL=C text quote="'\\''" space=''
  for text in "$@"; do
    case $text in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) text=\'${text//\'/"$quote"}\' ;;
    esac
    printf '%s%s' "$space" "$text"
    space=' '
  done
}

call() {
  if $dry_run; then
    printf '%s\n' "$(quoted "$@")" >&3
  else
    "$@"
  fi
}

assign() { # FLAG VALUE
  local variable=${1#--} known="${SETTINGS[*]} ${OPTIONS[*]}"
  variable=${variable//-/_}
  if [[ " $known " == *" $variable "* ]]; then
    printf -v "$variable" '%s' "$2"
  else
    problem "$1 is unknown; known: $(sed 's/_/-/g; s/[^ ]*/--&/g' <<<"$known dry_run yes follow")"
  fi
}

parse_flags() {
  while (($#)); do
    case $1 in
      --) arguments=("${@:2}") && return ;;
      -h | --help) usage && exit ;;
      --dry-run) dry_run=true ;;
      --yes) yes=true ;;
      --follow) follow=true ;;
      --spot) spot=true ;;
      --*=*) assign "${1%%=*}" "${1#*=}" ;;
      --*)
        if (($# > 1)) && [[ $2 != --* ]]; then
          assign "$1" "$2" && shift
        else
          problem "$1 needs a value; one that begins with -- is given as $1=VALUE"
        fi ;;
      *) problem "'$1' is no flag: what xlmjax or the worker shall get goes behind --" ;;
    esac
    shift
  done
}

# Settings of the file that no flag has set. What else it sets is told by name, and a line that sets
# nothing by its number: any text may be a secret.
read_env_file() {
  local line number=0 variable value ignored='' word='[A-Za-z_][A-Za-z0-9_]*'
  [[ -n $env_file ]] || return 0
  [[ -r $env_file ]] || { problem "--env-file='$env_file' cannot be read" && return; }
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1)) line=${line%$'\r'}
    [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]] || continue
    if ! [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?($word)=([^[:space:]].*)?$ ]]; then
      problem "$env_file: line $number is not NAME=VALUE, without spaces around =, nor a comment"
      continue
    fi
    variable=$(tr '[:upper:]' '[:lower:]' <<<"${BASH_REMATCH[2]}")
    value=${BASH_REMATCH[3]}
    if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
    if [[ " ${SETTINGS[*]} " != *" $variable "* ]]; then
      ignored+=" ${line%%=*}"
    elif [[ -z ${!variable} ]]; then
      printf -v "$variable" '%s' "$value"
    fi
  done <"$env_file"
  [[ -z $ignored ]] || say "$env_file: no settings of the launcher:$ignored"
}

need() { # SETTING PATTERN EXAMPLE
  local value=${!1} flag=--${1//_/-}
  if [[ -z $value ]]; then
    problem "$flag is missing: give $flag=$3, or a line" \
      "$(tr '[:lower:]' '[:upper:]' <<<"$1")=$3 in --env-file"
  else
    allow "$@"
  fi
}

allow() { # SETTING PATTERN EXAMPLE: as `need`, but it may be missing
  [[ -z ${!1} || ${!1} =~ ^($2)$ ]] ||
    problem "--${1//_/-}='${!1}' is not possible: it looks like $3"
}

check_settings() {
  local bucket_name='gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]'
  need name '[a-z]([a-z0-9-]{0,50}[a-z0-9])?' my-tpu
  need project '([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]' my-project
  need zone '[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]' us-central2-b
  slices=${slices:-1} spot=${spot:-false}
  allow slices '[1-9][0-9]*' 2
  allow spot 'true|false' 'true or false'
  allow bucket "$bucket_name(/[^[:space:]]+)?" gs://my-bucket
  allow data "$bucket_name(/[^[:space:]]+)?" gs://my-bucket/data
  allow worker 'all|[0-9]+' '0, or all'
  allow slice '0|[1-9][0-9]*' 0
  allow lines '[0-9]+' 100
  allow attempts '[0-9]+' 10
  allow poll '[0-9]+([.][0-9]+)?' 30
  bucket=${bucket%/} data=${data%/}
  ((${#problems[@]})) || ((slice < slices)) ||
    problem "--slice='$slice' is not one of the $slices, counted from 0"
}

check_type() {
  need type '(v|tpu)[0-9]+[a-z]*-[0-9]+' v4-32
  case $type in
    '') ;;
    v5e-*) problem "--type='$type': gcloud calls it v5litepod-${type#*-}" ;;
    tpu7x-* | v7x-*)
      problem "--type='$type': TPU7x (Ironwood) is rented through GKE, not the TPU API, and this" \
        "script does not drive GKE" ;;
    v2-* | v3-* | v4-*) : "${runtime:=tpu-ubuntu2204-base}" ;;
    v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    *)
      [[ -n $runtime ]] ||
        problem "--type='$type' has no known TPU software: give --runtime too" ;;
  esac
}

# Set `commit` to a full one that can be installed, and found again later.
check_commit() {
  local wanted=${commit:-HEAD} changed
  changed=$(git -C "$here" status --porcelain 2>/dev/null) || changed=''
  if [[ -z $commit && -n $changed ]]; then
    problem "uncommitted changes would not reach the workers; commit them, or give" \
      "--commit=HEAD to leave them out:"$'\n'"$changed"
  fi
  if ! commit=$(git -C "$here" rev-parse --verify --quiet "$wanted^{commit}" 2>/dev/null); then
    problem "--commit='$wanted' is no commit of the repository $here"
  elif [[ -n $(git -C "$here" remote) ]] &&
    [[ -z $(git -C "$here" branch --remotes --contains "$commit") ]]; then
    problem "commit $commit is on no remote branch, so this run could not be told later: git push"
  fi
}

# What is remembered on this machine: the settings of `create`, commit and data of `setup`, the
# arguments of `run`. Values end in NUL, so that each comes back as it was.
remember() { # FILE VALUE...
  ! $dry_run || return 0
  mkdir -p "$state_folder"
  printf '%s\0' "${@:2}" >"$state_folder/$1"
}

recall() { # FILE: into `recalled`
  local value
  recalled=()
  [[ -f $state_folder/$1 ]] || return 1
  while IFS= read -r -d '' value; do recalled+=("$value"); done <"$state_folder/$1"
}

remember_settings() {
  local setting values=()
  for setting in "${FIXED[@]}"; do values+=("$setting=${!setting}"); done
  remember settings "${values[@]}"
}

# What is not given now is as it was; what the TPU cannot become is refused.
recall_settings() {
  local entry setting value flag
  if [[ -z $data ]] && recall data; then data=${recalled[0]}; fi
  recall settings || return 0
  for entry in "${recalled[@]}"; do
    setting=${entry%%=*} value=${entry#*=} flag=--${entry%%=*}
    if [[ -z ${!setting} ]]; then
      printf -v "$setting" '%s' "$value"
    elif [[ ${!setting} != "$value" ]]; then
      problem "${flag//_/-}='${!setting}', but $name was created with '$value': leave it out, or" \
        "delete $name and create it again"
    fi
  done
}

check_workdir() {
  local argument
  for argument in "${arguments[@]}"; do
    case $argument in --workdir | --workdir=*) return ;; esac
  done
  [[ -n $bucket ]] || problem "no workdir: give --bucket=gs://my-bucket, or --workdir=... behind --"
  arguments+=("--workdir=$bucket/$name")
}

describe() { # ASSUMED: the state, or NONE; what is assumed is for --dry-run
  local state
  if ! state=$(call gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>"$scratch/error"); then
    if grep -q 'NOT_FOUND\|was not found' "$scratch/error"; then
      state=NONE
    else
      cat "$scratch/error" >&2
      return 1
    fi
  fi
  if $dry_run; then state=$1; fi
  printf '%s\n' "${state:-UNKNOWN}"
}

# As `describe`, but it outlasts --attempts failures in a row: one shall not end a wait of days.
await_answer() { # ASSUMED
  local failures=0
  until describe "$1"; do
    failures=$((failures + 1))
    if ((failures > attempts)); then
      say "the state of $name cannot be asked; what is there stays, and the same command goes on"
      return 1
    fi
    back_off "$((failures + 1))"
  done
}

nodes() { # a slice is a node: NAME, or NAME-0, NAME-1, ...
  local index
  if ((slices == 1)); then echo "$name" && return; fi
  for ((index = 0; index < slices; index++)); do echo "$name-$index"; done
}

node_of_slice() {
  if ((slices == 1)); then echo "$name"; else echo "$name-$slice"; fi
}

request() {
  local options=(--accelerator-type="$type" --runtime-version="$runtime")
  if ((slices == 1)); then
    options+=(--node-id="$name")
  else
    options+=(--node-count="$slices" --node-prefix="$name")
  fi
  [[ $spot == false ]] || options+=(--spot)
  [[ -z $network ]] || options+=(--network="$network")
  [[ -z $subnetwork ]] || options+=(--subnetwork="$subnetwork")
  [[ -z $service_account ]] || options+=(--service-account="$service_account"
    --scopes=https://www.googleapis.com/auth/cloud-platform)
  call gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}" --quiet
}

wait_until_active() {
  local state before=''
  while state=$(await_answer ACTIVE); do
    [[ $state == "$before" ]] || $dry_run || say "$name is $state"
    before=$state
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | NONE)
        say "$name was not provisioned; \`gcloud compute tpus queued-resources describe\` may" \
          "tell why: delete it and create it again, as watch does"
        return 1 ;;
    esac
    sleep "$poll"
  done
  return 1
}

remove() {
  call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

# A worker's answer; the name of its machine ends in its number.
tell() { printf '@%s\t%s\n' "$(hostname | sed 's/.*-w-//')" "$*"; }

worker_setup() { # COMMIT DATA PYTHON UV
  local code=$HOME/xlmjax/code/$1 old used
  export PATH="$HOME/.local/bin:$PATH"
  if ! [ -e "$code/.ready" ]; then
    mkdir -p "$code"
    tar -xzf "$HOME/xlmjax-$1.tar.gz" -C "$code"
    case $(uv --version 2>/dev/null) in
      "uv $4" | "uv $4 "*) ;;
      *) curl -LsSf "https://astral.sh/uv/$4/install.sh" | UV_INSTALL_DIR=$HOME/.local/bin sh ;;
    esac
    (cd "$code" && uv sync --quiet --python "$3" --no-dev --group tpu)
    touch "$code/.ready"
  fi
  if [ -n "$2" ]; then
    mkdir -p "$HOME/xlmjax/data"
    gcloud storage rsync --recursive "$2" "$HOME/xlmjax/data"
    ln -sfn ../../data "$code/data"
  fi
  ln -sfn "code/$1" "$HOME/xlmjax/current"
  used=$(readlink /proc/[0-9]*/cwd) || : # of others' processes it tells nothing
  for old in "$HOME"/xlmjax/code/*; do
    case $old/$'\n'$used in
      "$code/"*|*$'\n'"$(readlink -f "$old")"[/$'\n']*) ;;
      *) rm -rf "$old" ;;
    esac
  done
  tell ready
}

# The lock is held by everything that belongs to a run, and freed by the kernel with the last of it.
worker_start() { # COMMIT ID ARGUMENTS...
  local run=$HOME/xlmjax/run code=$HOME/xlmjax/code/$1 id=$2
  shift 2
  [ -e "$code/.ready" ] ||
    { echo "${code##*/} is not installed: launch_tpu.sh setup" >&2 && return 3; }
  mkdir -p "$run"
  exec 9>>"$run/lock"
  if ! flock --timeout 5 9; then
    [ "$(cat "$run/id")" = "$id" ] || { echo "another run lives here" >&2 && return 4; }
    tell "runs already" && return
  fi
  rm -f "$run/exit"
  printf '%s\n' "$id" >"$run/id"
  setsid bash -c "$(declare -f worker_train); worker_train \"\$@\"" worker "$code" "$@" \
    </dev/null >>"$run/log" 2>&1 &
  tell started
}

worker_train() { # CODE ARGUMENTS...
  local run=$HOME/xlmjax/run pid status
  cd "$1" && shift
  export PATH="$HOME/.local/bin:$PATH"
  printf '\n%s %s: xlmjax train' "$(date -u +%FT%TZ)" "${PWD##*/}" && printf ' %q' "$@" && echo
  trap : TERM # the run saves and ends by itself; this shell stays to write down how
  uv run --no-sync xlmjax train "$@" &
  pid=$!
  echo "$pid" >"$run/pid"
  while status=0 && { wait "$pid" || status=$?; } && kill -0 "$pid" 2>/dev/null; do :; done
  echo "$status" >"$run/exit.new" && mv "$run/exit.new" "$run/exit"
}

worker_status() {
  local run=$HOME/xlmjax/run state=none line=''
  if [ -e "$run/id" ]; then
    if ! flock --nonblock "$run/lock" true; then
      state=running
    elif [ -e "$run/exit" ]; then
      state="ended $(cat "$run/exit")"
    else
      state=lost
    fi
    line=$(tail -n 1000 "$run/log" | grep '^step [0-9]' | tail -n 1) ||
      line=$(grep . "$run/log" | tail -n 1) || line=''
  fi
  tell "$state"$'\t'"$(cat "$run/id" 2>/dev/null)"$'\t'"$line"
}

worker_tail() { # LINES
  local label
  label=$(tell)
  tail -n "$1" "$HOME/xlmjax/run/log" | awk -v label="$label" '{ print label $0 }'
}

remote() { # FUNCTION ARGUMENTS...: what the worker's shell, a bash, gets
  local functions=(tell "$1")
  [[ $1 != worker_start ]] || functions+=(worker_train)
  printf 'set -euo pipefail\n%s\n%s' "$(declare -f "${functions[@]}")" "$(quoted "$@")"
}

ssh_node() { # NODE WORKER COMMAND
  call gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" --worker="$2" --quiet --command="$3" \
    </dev/null
}

describe_node() { # NODE: its state and number of workers
  call gcloud compute tpus tpu-vm describe "$1" "${where[@]}" \
    --format='value(state,networkEndpoints.len())'
}

# Every worker of every slice at once. Answers, as lines NODE<tab>WORKER<tab>TEXT, are in
# $scratch/answers; fails, naming them, if some worker gave none. A worker answers by `tell`, at its
# end, so what gcloud returns (of how many workers, in which version) does not matter.
ask_workers() { # FUNCTION ARGUMENTS...
  local command node
  command=$(remote "$@")
  for node in $(nodes); do
    ssh_node "$node" all "$command" >"$scratch/$node.out" 2>"$scratch/$node.err" &
    if $dry_run; then wait; fi
  done
  wait
  if $dry_run; then return; fi
  for node in $(nodes); do
    sed -n "s/^@/$node"$'\t/p' "$scratch/$node.out"
  done | sort -s -t $'\t' -k1,1 -k2,2n >"$scratch/answers"
  everyone_answered "$1"
}

everyone_answered() { # FUNCTION
  local node count index silent missing=''
  for node in $(nodes); do
    silent=''
    count=$(describe_node "$node" | cut -f 2) || count=''
    for ((index = 0; index < ${count:-1}; index++)); do
      grep -q "^$node"$'\t'"$index"$'\t' "$scratch/answers" || silent+=" $node/$index"
    done
    [[ -z $silent ]] || tail -n 5 "$scratch/$node.err" >&2
    missing+=$silent
  done
  [[ -z $missing ]] || { say "${1#worker_} failed on:$missing" && return 1; }
}

install() {
  local archive=$state_folder/xlmjax-$commit.tar.gz node
  call mkdir -p "$state_folder"
  $dry_run || say "sending $commit and installing it; the first time that takes minutes"
  call git -C "$here" archive --format=tar.gz --output="$archive" "$commit" || return
  for node in $(nodes); do
    call gcloud compute tpus tpu-vm scp "$archive" "$node:${archive##*/}" "${where[@]}" \
      --worker=all --quiet </dev/null || return
  done
  ask_workers worker_setup "$commit" "$data" "$PYTHON" "$UV" || return
  $dry_run || say "every worker has it${data:+, and $data}"
}

run_id() { printf '%s\0' "$commit" "${arguments[@]}" | cksum | tr ' ' -; }

start() {
  ask_workers worker_start "$commit" "$(run_id)" "${arguments[@]}" || return
  if $dry_run; then return; fi
  cut -f 3 "$scratch/answers" | sort | uniq -c | while read -r count what; do
    say "$what on $count workers"
  done
}

other_run() { # succeeds where some worker runs something else than this command
  awk -F '\t' -v id="$(run_id)" '$3 == "running" && $4 != id { found = 1 } END { exit !found }' \
    "$scratch/answers"
}

command_create() {
  local state
  state=$(describe NONE) || exit 1
  case $state in
    NONE) request || exit 1 ;;
    FAILED | SUSPENDING | SUSPENDED)
      fail "$name is $state and does not come back: delete it and create it again, as watch does" ;;
    *) say "$name is there already: $state" ;;
  esac
  remember_settings
  wait_until_active || exit 1
}

command_setup() {
  install || exit 1
  remember commit "$commit"
  remember data "$data"
}

command_run() {
  ask_workers worker_status || exit 1
  if ! $dry_run && other_run; then
    print_answers
    fail "a run with another command or commit lives: wait for it, or stop it (docs/tpu.md)"
  fi
  remember commit "$commit"
  remember arguments "${arguments[@]}"
  start || exit 1
}

print_answers() {
  awk -F '\t' '{ printf "%s/%s  %-10s  %s\n", $1, $2, $3, $5 }' "$scratch/answers"
}

command_status() {
  local state status=0
  state=$(describe ACTIVE) || exit 1
  $dry_run || echo "$name  $state"
  [[ $state == ACTIVE ]] || return 0
  ask_workers worker_status || status=1
  $dry_run || print_answers
  return "$status"
}

command_logs() {
  local options=(-n "${lines:-100}") status=0
  if [[ $worker == all ]]; then
    ask_workers worker_tail "${lines:-20}" || status=1
    $dry_run || sed $'s/\t/\\//; s/\t/  /' "$scratch/answers"
    return "$status"
  fi
  if $follow; then options+=(-F); fi
  ssh_node "$(node_of_slice)" "${worker:-0}" "$(quoted tail "${options[@]}" xlmjax/run/log)"
}

command_ssh() {
  local node order=() status=0
  ((${#arguments[@]} == 0)) || order=(--command="$(quoted "${arguments[@]}")")
  if [[ $worker == all ]]; then
    for node in $(nodes); do shell_on "$node" all "${order[@]}" || status=$?; done
    return "$status"
  else
    shell_on "$(node_of_slice)" "${worker:-0}" ${order[@]+"${order[@]}"}
  fi
}

shell_on() { # NODE WORKER [--command=...]
  call gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" --worker="$2" "${@:3}"
}

command_delete() {
  local state answer
  state=$(describe ACTIVE) || exit 1
  if [[ $state == NONE ]]; then
    say "$name is not there: nothing to delete"
  else
    if ! $yes && ! $dry_run; then
      read -r -p "Delete $name ($state) in $zone of $project? [y/N] " answer || true
      [[ ${answer:-} == [yY]* ]] || fail "not deleted"
    fi
    remove || exit 1
  fi
  call rm -rf "$state_folder"
}

# Print how the run stands: waiting, gone, unknown, unreachable, down, running PROGRESS, done,
# failed CODE, or other (not our run).
assess() {
  local state node
  state=$(await_answer ACTIVE) || { echo unknown && return; }
  case $state in
    ACTIVE) ;;
    NONE | FAILED | SUSPENDED) echo "gone $state" && return ;;
    *) echo "waiting $state" && return ;;
  esac
  for node in $(nodes); do
    state=$(describe_node "$node") || { echo unreachable && return; }
    case $state in
      PREEMPTED* | TERMINATED* | STOPP*) echo "gone $node ${state%%$'\t'*}" && return ;;
    esac
  done
  if ask_workers worker_status; then judge <"$scratch/answers"; else echo unreachable; fi
}

# A worker that was stopped from outside or never started makes the run one to start again, and so
# do workers that ask for it or were killed, where none has another reason. Only where all have ended
# by themselves did it fail. A wrong config (2) is that whoever tells it.
judge() {
  awk -F '\t' -v id="$(run_id)" -v preempted="$PREEMPTED" -v try_again="$TRY_AGAIN" \
    -v interrupted="$INTERRUPTED" '
    $4 != id { if ($3 == "running") other = 1; else down = 1; next }
    $3 == "running" { running = 1; if ($5 ~ /^step/) progress = $5; next }
    { split($3, part, " "); ended = part[2] }
    $3 == "lost" || ended == preempted { down = 1; next }
    ended == try_again || (ended > 128 && ended != interrupted) { again = 1; next }
    ended == 2 || !code { code = ended }
    END {
      if (other) print "other"
      else if (code == 2) print "failed 2"
      else if (down) print "down"
      else if (running) print "running " progress
      else if (code) print "failed " code
      else if (again) print "down"
      else print "done"
    }'
}

# Create what is gone, set up, start: whatever of it is done already costs a look.
revive() { # VERDICT
  local state
  state=$(describe NONE) || return
  if [[ $1 == gone* && $state != NONE ]]; then
    remove || return
    state=NONE
  fi
  if [[ $state == NONE ]]; then request || return; fi
  remember_settings
  wait_until_active && install && start
}

back_off() { # ATTEMPT: nothing before the first, then twice as long every time
  local exponent=$(($1 < 8 ? $1 : 8))
  (($1 < 2)) || sleep "$(awk -v poll="$poll" -v n="$exponent" 'BEGIN { print poll * 2 ^ (n - 2) }')"
}

command_watch() {
  local verdict before='' step reached=-1 attempt=0 repeats=0
  remember commit "$commit"
  remember arguments "${arguments[@]}"
  remember data "$data"
  if $dry_run; then revive gone && return; fi
  while verdict=$(assess); do
    repeats=$((repeats + 1))
    if [[ $verdict != "$before" ]]; then repeats=1 && say "$name: $verdict"; fi
    before=$verdict
    case $verdict in
      done) say "the run has ended well; the TPU is still there: delete" && return ;;
      other) fail "another run lives on $name: this one is not started on top of it" ;;
      unknown) exit 1 ;;
      'failed 2') end_watch 2 ;;
      failed*) ((repeats < 2)) || end_watch "${verdict#failed }" ;;
      'running step '*)
        step=${verdict#running step } step=${step%%/*}
        if ((step > reached)); then reached=$step attempt=0; fi ;;
      gone* | down) attempt=$((attempt + 1)) && try_again "$verdict" "$attempt" ;;
      unreachable) ((repeats < 3)) || { attempt=$((attempt + 1)) && try_again down "$attempt"; } ;;
    esac
    sleep "$poll"
  done
}

try_again() { # VERDICT ATTEMPT
  (($2 <= attempts)) ||
    fail "gave up after $attempts attempts without progress; what is there still costs: delete"
  say "attempt $2 of $attempts"
  back_off "$2"
  revive "$1" || say "attempt $2 did not succeed"
}

end_watch() { # CODE
  say "the run failed with exit code $1, which is no preemption: logs tells why"
  say "the TPU is still there: delete"
  exit "$1"
}

check_arguments() { # COMMAND
  local given=${#arguments[@]}
  case $1 in
    run) ((given)) || problem "run needs what xlmjax train gets: run -- --config=NAME" ;;
    watch)
      if ((!given)) && recall arguments; then arguments=("${recalled[@]}"); fi
      ((${#arguments[@]})) || problem "no run is remembered to watch: watch -- --config=NAME" ;;
    ssh) ((given)) || [[ $worker != all ]] || problem "--worker=all needs a command: -- COMMAND" ;;
    *) ((!given)) || problem "$1 takes no arguments behind --" ;;
  esac
  case $1 in
    create) check_type ;;
    watch) check_type && check_run ;;
    run) check_run ;;
    setup) check_commit ;;
    logs) [[ $worker != all ]] || ! $follow || problem "--follow is of one worker: --worker=0" ;;
    delete) $yes || $dry_run || [[ -t 0 ]] || problem "delete asks on a terminal: give --yes" ;;
  esac
}

check_run() {
  ((${#arguments[@]} == 0)) || check_workdir
  if [[ -z $commit ]] && recall commit; then commit=${recalled[0]}; fi
  check_commit
}

main() {
  local command=${1:---help} where scratch state_folder
  case $command in
    create | setup | run | status | logs | watch | ssh | delete) shift ;;
    -h | --help | help) usage && exit "$(($# == 0 ? 2 : 0))" ;;
    *)
      say "'$command' is no command; known: create setup run status logs watch ssh delete"
      exit 2 ;;
  esac
  parse_flags "$@"
  read_env_file
  state_folder=$state_root/$project/$zone/$name
  [[ $command == delete ]] || recall_settings
  check_settings
  check_arguments "$command"
  stop_on_problems
  $dry_run || command -v gcloud >/dev/null ||
    fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
  where=(--project="$project" --zone="$zone")
  scratch=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$scratch'" EXIT
  exec 3>&1
  "command_$command"
}

main "$@"
