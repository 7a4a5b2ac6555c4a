#!/bin/bash
# Runs schemathesis, stateful and negative, against a live server with real
# rooms for a bounded time. Arguments: the stead program, the base image, a
# package to install, the schemathesis program, seconds, a seed. Everything
# happens in a network namespace of its own.
#
# Left out: signing out, revoking sessions and power, which would end the run;
# streams of events, which do not end (package server tests them); and the
# terminal, which is no HTTP exchange.
set -euo pipefail

if [ "${IN_NAMESPACE:-}" = "" ]; then
	exec env IN_NAMESPACE=1 unshare --net -- bash "$0" "$@"
fi
stead=$1 base=$2 package=$3 schemathesis=$4 seconds=$5 seed=$6
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
url=http://127.0.0.1:18473
ip link set lo up
"$stead" serve --dir "$dir/state" --listen 127.0.0.1:18473 --base-image "$base" --log-level warn >"$dir/log" 2>&1 &
server=$!
finish() {
	status=$?
	kill -INT "$server" 2>/dev/null || true
	wait "$server" || true
	[ "$status" = 0 ] || tail -n 20 "$dir/log"
	rm -rf "$dir"
}
trap finish EXIT
for _ in $(seq 300); do
	curl -sf "$url/readyz" >/dev/null && break
	kill -0 "$server"
	sleep 0.1
done
json='Content-Type: application/json'
curl -sf "$url/v1/setup:claim" -H "$json" -d "{\"code\":\"$(cat "$dir/state/claim-code")\",\"password\":\"correct horse\"}"
token=$(curl -sf "$url/v1/sessions" -H "$json" -d '{"password":"correct horse"}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
"$stead" packages sideload --dir "$dir/state" "$package" >/dev/null
cd "$dir" # it leaves files where it runs
"$schemathesis" --config-file "$here/schemathesis.toml" run "$url/openapi.json" --header "Authorization: Bearer $token" \
	--max-examples 20 --max-time "$seconds" --seed "$seed" --request-timeout 30 --no-color --no-shrink --continue-on-failure --suppress-health-check all \
	--exclude-operation-id sign-out --exclude-operation-id revoke-session --exclude-operation-id power \
	--exclude-operation-id open-shell --exclude-path-regex '/events$'
