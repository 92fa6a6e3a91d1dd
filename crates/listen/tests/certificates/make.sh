#!/bin/sh
# Makes the certificates of the tests anew: an authority, and two certificates of this machine's loopback.
# The keys are worth nothing: nobody trusts the authority but the tests.
set -eu
cd "$(dirname "$0")"
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }
new_key ca
openssl req -x509 -new -key ca.key -days 36500 -subj "/CN=Pipeyard tests" -out ca.pem \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
for name in one two; do
    new_key $name
    openssl req -new -key $name.key -subj "/CN=$name" -out $name.csr
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' > ext
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -days 36500 -extfile ext -out $name.pem 2>/dev/null
done
rm -f ca.key ca.srl ext ./*.csr
