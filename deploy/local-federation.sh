#!/usr/bin/env bash
# A whole federation on this machine, as separate processes on the loopback interface: TLS, authenticated SuperNodes, a ledger
# node, a store, and a site's own keys and folder each. Trains, audits, and stops all it started.
#
#   deploy/local-federation.sh FOLDER [key=value ...]
#
# FOLDER is made new. key=value are settings of the run, as for flower-simulation. The environment may set SITES (3), PORT (the
# first of SITES + 3 free ports; 18000), LEDGER_URL (a node that runs already, such as anvil) with CHAIN_ID, PROJECT (.), and
# DATA (a folder with site-0/, site-1/, ... of frames/ and masks/; generated phantoms else).
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd) && shift
if [ -n "$(ls -A "$folder")" ]; then echo "$folder is not empty; name a new folder for a new federation" >&2; exit 2; fi
sites=${SITES:-3} port=${PORT:-18000} chain_id=${CHAIN_ID:-20260} project=${PROJECT:-.}
export FLWR_HOME=$folder/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 OMP_NUM_THREADS=1
superlink=127.0.0.1:$port ca=$folder/tls/ca.crt

supervisors=()
stop() {
  for ((i = ${#supervisors[@]} - 1; i >= 0; i--)); do kill "${supervisors[i]}" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop EXIT

# NAME COMMAND...: in the background, and again whenever it ends, as systemd does. Output in FOLDER/logs/NAME.log.
start() {
  mkdir -p "$folder/logs" "$folder/pids"
  supervise "$@" &
  supervisors+=($!)
}

supervise() {
  trap 'kill "$child" 2>/dev/null; wait "$child"; exit 0' TERM
  trap - EXIT
  while true; do
    "${@:2}" >>"$folder/logs/$1.log" 2>&1 &
    child=$!
    echo "$child" >"$folder/pids/$1"
    wait "$child" || true
    sleep 1
  done
}

until_line() { # FILE PATTERN: wait until a server has said that it is ready
  for _ in $(seq 600); do
    grep -qs -- "$2" "$1" && return
    sleep 0.2
  done
  echo "no '$2' in $1 within two minutes" >&2
  tail -5 "$1" >&2
  return 1
}

# 1. TLS: an authority of the federation's own, and the SuperLink's certificate.
mkdir -p "$folder/tls" "$FLWR_HOME"
(
  cd "$folder/tls"
  openssl ecparam -name secp384r1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -sha384 -days 365 -subj "/CN=federation" -out ca.crt
  openssl ecparam -name secp384r1 -genkey -noout -out server.key
  openssl req -new -key server.key -subj "/CN=superlink" -out server.csr
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >server.ext
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -sha384 -extfile server.ext -out server.crt
) 2>/dev/null

# 2. The ledger, and the federation's contract on it.
if [ -z "${LEDGER_URL:-}" ]; then
  start ledger bahefl ledger serve "$folder/ledger" --port $((port + 1)) --chain-id "$chain_id"
  until_line "$folder/logs/ledger.log" '"url"'
fi
ledger=${LEDGER_URL:-http://127.0.0.1:$((port + 1))}
store=http://127.0.0.1:$((port + 2))
head -c 24 /dev/urandom | base64 >"$folder/passphrase" && chmod 600 "$folder/passphrase"
bahefl ledger deploy "$folder/administrator" --rpc "$ledger" --chain-id "$chain_id" --passphrase-file "$folder/passphrase" \
  "federation.sites=$sites" "run.root='$folder/runs'" store=http "store.url=$store" ledger.confirmations=0 "$@" \
  --format json >"$folder/contract.json"
contract=$(sed -n 's/.*"contract": "\(.*\)".*/\1/p' "$folder/contract.json")
settings=$(sed -n 's/.*"settings_digest": "\(.*\)".*/\1/p' "$folder/contract.json")

# 3. The store, for the members on the ledger.
start store bahefl store serve "$folder/store" --rpc "$ledger" --chain-id "$chain_id" --contract "$contract" --port $((port + 2))
until_line "$folder/logs/store.log" '"url"'

# 4. Every site makes its keys; the administrator whitelists it.
for ((i = 0; i < sites; i++)); do
  bahefl site init "$folder/site-$i" --rpc "$ledger" --chain-id "$chain_id" --contract "$contract" \
    --passphrase-file "$folder/passphrase" --store-url "$store" --confirmations 0 --settings-digest "$settings" \
    ${DATA:+--data "$DATA/site-$i"} --format json >"$folder/site-$i.json"
  bahefl members add --weight 1 "$folder/administrator" "$(sed -n 's/.*"address": "\(.*\)".*/\1/p' "$folder/site-$i.json")"
done

# 5. The SuperLink, which knows the SuperNodes' keys, and the executor that starts the ServerApp.
start superlink flower-superlink --host 127.0.0.1 --port "$port" --isolation process --database "$folder/superlink.db" \
  --ssl-ca-certfile "$ca" --ssl-certfile "$folder/tls/server.crt" --ssl-keyfile "$folder/tls/server.key" \
  --enable-supernode-auth
printf '[superlink]\ndefault = "local"\n[superlink.local]\naddress = "%s"\nroot-certificates = "%s"\n' \
  "$superlink" "$ca" >"$FLWR_HOME/config.toml"
until_line "$folder/logs/superlink.log" 'Uvicorn running'
start executor bahefl-executor --runtime-api-address "$superlink" --root-certificates "$ca"
for ((i = 0; i < sites; i++)); do
  flwr supernode register "$folder/site-$i/supernode.key.pub" local
done

# 6. A SuperNode and its executor for each site.
for ((i = 0; i < sites; i++)); do
  start "supernode-$i" bahefl-supernode --superlink "$superlink" --root-certificates "$ca" --isolation process \
    --host 127.0.0.1 --port $((port + 3 + i)) --auth-supernode-private-key "$folder/site-$i/supernode.key" \
    --node-config "site-home=\"$folder/site-$i\" partition-id=$i num-partitions=$sites"
  start "executor-$i" bahefl-executor --runtime-api-address "127.0.0.1:$((port + 3 + i))" --insecure
done

# 7. Train; if the ServerApp was killed, go on. Check afterwards what the ledger and the store say of it.
for _ in 1 2 3 4 5 6; do
  flwr run "$project" local --stream --run-config "$folder/administrator/run-config.toml" || true
  # After a restart of the SuperLink its ServerApp goes on, though the stream has ended: it holds this lock.
  for lock in "$folder"/runs/2*/driver.lock; do [ ! -e "$lock" ] || flock -w 3600 "$lock" true; done
  grep -qs '"outcome": "completed"' "$folder"/runs/2*/summary.json && break
done
grep -q '"outcome": "completed"' "$folder"/runs/2*/summary.json
bahefl audit "$folder"/runs/2* --store "$folder/store"
