#!/bin/sh
# The worker's status page.
read -r version < ../../VERSION
printf 'Content-Type: application/json\r\n\r\n{"service":"worker","version":%s}\n' "$version"
