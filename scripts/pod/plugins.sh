#!/bin/sh
# Fills /release with Roundcube and the wanted third-party plugins (arguments: vendor/package:version), which the image copies at its start.
#
# A set is made once, by Composer and from the network, and kept in /plugins. A start with an unchanged set copies it and needs no
# network. Where a new set cannot be made, the last one that could is used again; the log and the container's last words say so.
# Without any set nothing starts: a login without the plugin that asks for a second factor would be open.
set -eu

image=${IMAGE_DIR:-/usr/src/roundcubemail}
kept=${KEPT_DIR:-/plugins}
target=${TARGET_DIR:-/release}
words=${WORDS_FILE:-/dev/termination-log}

say() {
  echo "plugins: $*" >&2
  echo "plugins: $*" >>"$words"
}

version=$(sed -n "s/.*'RCMAIL_VERSION', *'\([^']*\)'.*/\1/p" "$image/program/include/iniset.php")
[ -n "$version" ] || { say "$image holds no Roundcube"; exit 1; }
set_id=$(printf '%s\n' "$version" "$@" | sha256sum | cut -c1-16)
current=$(readlink "$kept/current" || true)
[ -d "$kept/$current" ] || current=""

make_set() { # arguments as above; every step counts, and `set -e` is off in a condition
  rm -rf "$kept"/.making-*
  making=$kept/.making-$set_id
  mkdir "$making" && cp -R "$image/." "$making" || return 1
  [ -e "$making/composer.json" ] || cp "$making/composer.json-dist" "$making/composer.json" || return 1
  # The tables are made where the database is (plugin-tables.php).
  SKIP_DB_INIT=1 SKIP_DB_UPDATE=1 composer require --working-dir="$making" --prefer-dist --no-interaction --no-progress \
    --update-no-dev --optimize-autoloader -- "$@" >&2 || return 1
  for wanted in "$@"; do
    package=${wanted%%:*}
    folder=$(echo "${package#*/}" | tr - _)
    [ -e "$making/plugins/$folder/$folder.php" ] || { say "$package brings no plugin $folder"; return 1; }
  done
  printf 'roundcube %s\n' "$version" >"$making/.plugin-set" && printf '%s\n' "$@" >>"$making/.plugin-set" || return 1
  sync && mv "$making" "$kept/$set_id"
}

if [ ! -d "$kept/$set_id" ]; then
  if make_set "$@"; then
    say "installed: Roundcube $version with $*"
  elif [ -n "$current" ]; then
    say "INSTALLATION FAILED, the log says why; the set before it is still used: $(tr '\n' ' ' <"$kept/$current/.plugin-set")"
    set_id=$current
  else
    say "INSTALLATION FAILED, the log says why; there is no earlier set, so nothing is started"
    exit 1
  fi
fi

if [ "$set_id" != "$current" ]; then
  ln -sfn "$set_id" "$kept/.current" && mv -T "$kept/.current" "$kept/current"
  # This one and the one before it stay.
  for old in "$kept"/*/; do
    case $(basename "$old") in "$set_id" | "$current" | current) ;; *) rm -rf "$old" ;; esac
  done
fi
find "$target" -mindepth 1 -delete
cp -R "$kept/$set_id/." "$target"
