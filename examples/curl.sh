#!/bin/sh
# One image with nothing but curl: submit, poll, download.
#
#   export BFL_API_KEY=…
#   sh curl.sh "A serene mountain landscape at sunset" sunset.jpeg
#   BFL_BASE_URL=http://127.0.0.1:8000 sh curl.sh "A red fox" fox.jpeg flux-2-klein-4b
#
# Nothing is submitted twice: if a poll or a download fails, only the poll or the download is repeated.
set -eu

prompt=${1:?"usage: curl.sh PROMPT [FILE] [MODEL]"}
file=${2:-image.jpeg}
model=${3:-flux-2-pro}
base=${BFL_BASE_URL:-https://api.bfl.ai}
base=${base%/}
: "${BFL_API_KEY:?"set it to your key, from https://dashboard.bfl.ai/get-started"}"
timeout=${TIMEOUT:-300} # seconds for the whole wait

part=$(mktemp "${TMPDIR:-/tmp}/image.XXXXXX")
trap 'rm -f "$part"' EXIT
trap 'exit 130' INT TERM

# curl reads the key from a pipe, because every user of this machine can read its command line.
keyed() {
  printf 'header = "x-key: %s"\n' "$BFL_API_KEY" | curl -sS -K - "$@"
}

# Print the value of one text field of the JSON on standard input; this suffices for the answers of this service.
field() {
  sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' | sed 's#\\/#/#g; s/\\u0026/\&/g' | head -n 1
}

# The response chooses the URL to poll, so check where the key would go: to the base itself, or to BFL's hosts by https.
trusted() {
  case $1 in "$base"/*) return 0 ;; https://*) ;; *) return 1 ;; esac
  case $base in https://*.bfl.ai) ;; *) return 1 ;; esac
  host=${1#https://}
  host=${host%%/*}
  case $host in *[!A-Za-z0-9.-]*) return 1 ;; *.bfl.ai) return 0 ;; *) return 1 ;; esac
}

say() { printf '%s\n' "$*" >&2; }

escaped=$(printf '%s' "$prompt" | tr '\001-\037' ' ' | sed 's/\\/\\\\/g; s/"/\\"/g')
task=$(keyed --fail-with-body -X POST "$base/v1/$model" -H "Content-Type: application/json" \
  -d "{\"prompt\": \"$escaped\"}") || { say "The submit failed: $task"; exit 1; }
id=$(printf '%s' "$task" | field id)
polling_url=$(printf '%s' "$task" | field polling_url)
[ -n "$polling_url" ] || { say "The answer names no polling_url: $task"; exit 1; }
trusted "$polling_url" || { say "The polling_url is on a host that must not see the key: ${polling_url%%\?*}"; exit 1; }
say "submitted as $id"

waited=0
while :; do
  poll=$(keyed --max-time 30 "$polling_url") || poll=
  status=$(printf '%s' "$poll" | field status)
  case $status in
    Ready) break ;;
    Error | Failed | "Request Moderated" | "Content Moderated") say "The task ended as $status: $poll"; exit 1 ;;
    # Just after a submit, some machines of the service do not know the task yet.
    "Task not found") [ "$waited" -lt 10 ] || { say "The service does not know the task $id."; exit 1; } ;;
  esac
  [ "$waited" -lt "$timeout" ] || { say "Still ${status:-unknown} after $waited s; poll later: $polling_url"; exit 1; }
  sleep 1
  waited=$((waited + 1))
done

# The link is signed and valid for ten minutes; it needs no key and must not receive it.
sample=$(printf '%s' "$poll" | field sample)
type=$(curl -sS --fail --retry 5 --max-time 120 -o "$part" -w '%{content_type}' "$sample")
case $type in
  image/*) mv "$part" "$file" ;;
  *) say "The download is not an image but $type."; exit 1 ;;
esac
say "saved as $file"
