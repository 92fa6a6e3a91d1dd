#!/bin/sh
# Answers every address that isn't a file: `/` and `/api/cart/`.
. ../../shop/stock
. ../../shop/page
. ../../shop/cart
read -r version < ../../VERSION

answer() { # STATUS TYPE
    printf 'Status: %s\r\nContent-Type: %s\r\nX-Version: %s\r\nConnection: close\r\n\r\n' "$1" "$2" "$version"
}

path=${REQUEST_URI%%\?*}
case $path in
    / | /api/cart/) ;;
    *) answer '404 Not Found' text/plain; echo 'no such page'; exit ;;
esac
if ! reserve; then
    answer '500 Internal Server Error' application/json
    echo '{"error":"stock_not_available"}'
    exit
fi
case $path in
    /) answer '200 OK' 'text/html; charset=utf-8'; page ;;
    /api/cart/) answer '200 OK' application/json; cart ;;
esac
