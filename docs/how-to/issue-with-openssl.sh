#!/bin/sh
# An issuer for certificates.issue_command: an intermediate CA kept outside the fleet's home, by openssl 3.
#   issue_command = ["/etc/flagship/issue-with-openssl.sh", "/path/to/ca.pem", "/path/to/ca.key"]
# The request comes on stdin, the certificate goes to stdout. The name is FLAGSHIP_DEVICE, never the request's subject.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/request.pem"
openssl req -in "$work/request.pem" -verify -noout -pubkey 2> "$work/why" > "$work/key.pem" || {
  echo "the request is not signed by its key" >&2; exit 1; }
cat > "$work/leaf.cnf" <<EOF
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
EOF
days=$(( (FLAGSHIP_LIFE_S + 86399) / 86400 ))
openssl x509 -new -subj "/CN=$FLAGSHIP_DEVICE" -force_pubkey "$work/key.pem" -CA "$1" -CAkey "$2" \
  -days "$days" -extfile "$work/leaf.cnf"
