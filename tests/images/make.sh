#!/usr/bin/env bash
# Makes the small images of the tests and the demo from this machine's own files: no registry is
# asked. An image that exists with the same content is kept.
#
#   pipeyard/busybox:test   busybox with all its applets; root
#   pipeyard/bash:test      the same with bash
#   pipeyard/user:test      busybox with USER app (1000)
#   pipeyard/noshell:test   one static program and nothing else
#   pipeyard/web:test       busybox httpd on the exposed port 8080, started by its entrypoint
#   pipeyard/healthy:test   the same with a HEALTHCHECK that passes once /tmp/healthy exists
#
# Needs: docker, and Debian's packages busybox-static and bash-static.
set -euo pipefail

busybox=${BUSYBOX:-$(command -v busybox || true)}
bash_static=${BASH_STATIC:-$(command -v bash-static || true)}
for file in "$busybox:busybox-static" "$bash_static:bash-static"; do
    if [ -z "${file%%:*}" ]; then
        echo "images: ${file##*:} is missing: run 'apt-get install busybox-static bash-static'" >&2
        exit 1
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Everything that an image is made of: this script and the two programs.
content=$(cat "$0" "$busybox" "$bash_static" | sha256sum | cut -c1-32)

is_made() {
    [ "$(docker image inspect -f '{{index .Config.Labels "pipeyard.content"}}' "$1" 2>/dev/null)" = "$content" ]
}

# import TAG FOLDER CHANGE...: one image of one layer from a folder.
import() {
    local tag=$1 folder=$2 changes=()
    shift 2
    for change in "LABEL pipeyard.content=$content" "$@"; do
        changes+=(--change "$change")
    done
    tar -C "$folder" --numeric-owner --owner=0 --group=0 --sort=name -c . |
        docker import "${changes[@]}" - "$tag" >/dev/null
    echo "images: made $tag"
}

base() {
    local root=$1
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,root,tmp,var/tmp,proc,sys,dev,home/app}
    chmod 1777 "$root/tmp" "$root/var/tmp" "$root/home/app"
    cp "$busybox" "$root/bin/busybox"
    "$busybox" --list-full | while read -r path; do
        mkdir -p "$root/$(dirname "$path")"
        [ -e "$root/$path" ] || ln -s /bin/busybox "$root/$path"
    done
    [ -e "$root/bin/sh" ] || ln -s busybox "$root/bin/sh"
    printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\napp:x:1000:\n' >"$root/etc/group"
}

path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

wanted=()
for name in busybox bash user noshell web healthy; do
    is_made "pipeyard/$name:test" || wanted+=("$name")
done
[ ${#wanted[@]} -gt 0 ] || { echo "images: all are there"; exit 0; }

base "$work/busybox"
for name in "${wanted[@]}"; do
    tag=pipeyard/$name:test
    case $name in
        busybox) import "$tag" "$work/busybox" "$path" 'CMD ["/bin/sh"]' ;;
        bash)
            cp -a "$work/busybox" "$work/bash"
            cp "$bash_static" "$work/bash/bin/bash"
            import "$tag" "$work/bash" "$path" 'CMD ["/bin/bash"]'
            ;;
        user) import "$tag" "$work/busybox" "$path" 'USER app' 'CMD ["/bin/sh"]' ;;
        noshell)
            mkdir "$work/noshell"
            cp "$busybox" "$work/noshell/program"
            import "$tag" "$work/noshell" 'ENTRYPOINT ["/program"]'
            ;;
        web)
            import "$tag" "$work/busybox" "$path" 'EXPOSE 8080' 'WORKDIR /tmp' \
                'ENTRYPOINT ["httpd"]' 'CMD ["-f", "-v", "-p", "8080"]'
            ;;
        healthy)
            import "$tag" "$work/busybox" "$path" 'WORKDIR /tmp' \
                'HEALTHCHECK --interval=1s --timeout=2s CMD test -e /tmp/healthy' \
                'CMD ["sh", "-c", "sleep 1; touch /tmp/healthy; exec httpd -f -p 9090"]'
            ;;
    esac
done
