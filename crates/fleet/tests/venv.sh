#!/bin/sh
# Makes a Python environment with boto3 at $1 if there is none.
set -eu
[ -x "$1/bin/python" ] && "$1/bin/python" -c 'import boto3' 2>/dev/null && exit 0
python3 -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check boto3
