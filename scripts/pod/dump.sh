#!/bin/sh
# Dumps Roundcube's database, or loads a dump into it. Runs in an image of the database's own make, as a user without rights.
#
#   dump.sh save mysql|pgsql HOST PORT USER NAME    writes $COPY_DIR/database/dump.sql and, for the backup, $COPY_DIR/outcome
#   dump.sh load mysql|pgsql HOST PORT USER NAME    loads that file, if `--go` is among what follows
#
# Either way the dump is first loaded into an empty server of the same image: what does not load there is neither saved nor loaded.
# Sessions and caches are not in it, only their tables. `save` always ends with 0: the backup reads the outcome and reports it.
set -eu
umask 077

verb=$1 type=$2 host=$3 port=$4 user=$5 name=$6
shift 6
copy=${COPY_DIR:-/copy}
scratch=${SCRATCH_DIR:-/scratch}
password=${PASSWORD_FILE:-/password/password}
dump=$copy/database/dump.sql
proof=proof # name of the empty server's database and user
server=""

fail() {
  echo "database: $*" >&2
  [ "$verb" != save ] || { echo "error $*" | tr '\n' ' ' >"$copy/outcome"; exit 0; }
  exit 1
}

end() {
  code=$?
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ "$code" = 0 ] || [ "$verb" != save ] || [ -s "$copy/outcome" ] || fail "the dump ended with $code; the log of container database says more"
}
trap end EXIT

said() { # the last words of what failed
  grep -v "unknown .*loose-" "$scratch/errors" | tail -n 3 | tr '\n' ' '
}

program() { # the first that is there of the names
  for wanted; do
    command -v "$wanted" && return
  done
  return 1
}
lacks="the image lacks a program: is jobs.webmail_backup.database_image an official image of the server's make?"

if [ "$type" = mysql ]; then
  client=$(program mariadb mysql) || fail "$lacks"
  dumper=$(program mariadb-dump mysqldump) || fail "$lacks"
  daemon=$(program mariadbd mysqld) || fail "$lacks"
  secret=$(sed 's/\\/\\\\/g' "$password")
  # As Roundcube's own connection does, these take a server's certificate unseen. A program ignores a `loose-` option that it lacks.
  cat >"$scratch/live.cnf" <<END
[client]
host=$host
port=$port
user=$user
password="$secret"
loose-skip-ssl-verify-server-cert
loose-get-server-public-key
END
  printf '[client]\nsocket=%s\nuser=root\n' "$scratch/socket" >"$scratch/proof.cnf"

  sql() { # live|proof, statement
    if [ "$1" = live ]; then base=$name; else base=$proof; fi
    "$client" --defaults-file="$scratch/$1.cnf" --batch --skip-column-names -e "$2" "$base" 2>"$scratch/errors"
  }
  load() {
    if [ "$1" = live ]; then base=$name; else base=$proof; fi
    "$client" --defaults-file="$scratch/$1.cnf" --batch "$base" <"$dump" 2>"$scratch/errors"
  }
  release="SELECT CONCAT(IF(VERSION() LIKE '%MariaDB%', 'MariaDB ', 'MySQL '), SUBSTRING_INDEX(VERSION(), '.', 2))"
  tables="SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
  transient="SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND (table_name = 'session' OR table_name LIKE 'cache%')"

  write_dump() {
    skip=$(sql live "$transient") || return
    options="--single-transaction --quick --hex-blob --no-tablespaces --default-character-set=utf8mb4 --loose-column-statistics=0"
    ignored=$(for table in $skip; do echo "--ignore-table=$name.$table"; done)
    # shellcheck disable=SC2086 # lists of words; the tables' names are Roundcube's
    {
      [ -z "$skip" ] || "$dumper" --defaults-file="$scratch/live.cnf" $options --no-data "$name" $skip || return
      "$dumper" --defaults-file="$scratch/live.cnf" $options $ignored "$name"
    } >"$dump" 2>"$scratch/errors"
  }

  start_proof() {
    if install=$(command -v mariadb-install-db); then
      "$install" --no-defaults --datadir="$scratch/proof" --auth-root-authentication-method=normal --skip-test-db
    else
      "$daemon" --no-defaults --initialize-insecure --datadir="$scratch/proof"
    fi >"$scratch/errors" 2>&1 || return
    "$daemon" --no-defaults --datadir="$scratch/proof" --socket="$scratch/socket" --pid-file="$scratch/pid" --tmpdir="$scratch" \
      --skip-networking --skip-log-bin --innodb-buffer-pool-size=64M --performance-schema=OFF --loose-mysqlx=OFF >"$scratch/errors" 2>&1 &
    server=$!
    until "$client" --defaults-file="$scratch/proof.cnf" -e "CREATE DATABASE IF NOT EXISTS $proof CHARACTER SET utf8mb4" 2>/dev/null; do
      kill -0 "$server" 2>/dev/null || return
      sleep 1
    done
  }
else
  daemon=$(program postgres) || fail "$lacks"
  printf '*:*:*:*:%s\n' "$(sed 's/[\\:]/\\&/g' "$password")" >"$scratch/pgpass"
  export PGPASSFILE="$scratch/pgpass" PGCONNECT_TIMEOUT=30

  psql_on() { # live|proof, further arguments
    if [ "$1" = live ]; then set -- "host=$host port=$port user=$user dbname=$name" "$@"; else set -- "host=$scratch user=$proof dbname=postgres" "$@"; fi
    place=$1
    shift 2
    psql --no-psqlrc --no-password --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --dbname="$place" "$@" 2>"$scratch/errors"
  }
  sql() { psql_on "$1" --command="$2"; }
  load() { psql_on "$1" --single-transaction --file="$dump" --output=/dev/null; }
  release="SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), '.', 1)"
  tables="SELECT COUNT(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"

  write_dump() {
    pg_dump --no-password --host="$host" --port="$port" --username="$user" --dbname="$name" --no-owner --no-privileges --clean --if-exists \
      --lock-wait-timeout=60s --exclude-table-data=session --exclude-table-data='cache*' --file="$dump" 2>"$scratch/errors"
  }

  start_proof() {
    initdb --pgdata="$scratch/proof" --username="$proof" --auth=trust --encoding=UTF8 --no-locale --no-sync >"$scratch/errors" 2>&1 || return
    "$daemon" -D "$scratch/proof" -k "$scratch" -c listen_addresses='' -c fsync=off >"$scratch/errors" 2>&1 &
    server=$!
    until pg_isready --quiet --host="$scratch"; do
      kill -0 "$server" 2>/dev/null || return
      sleep 1
    done
  }
fi

must_load() { # the dump, into the empty server
  tail -n 5 "$dump" | grep -q 'ump complete' || fail "the dump breaks off"
  load proof || fail "the dump does not load: $(said)"
  for table in users identities contacts; do
    count=$(sql proof "SELECT COUNT(*) FROM $table") || fail "the dump has no table $table: is $name Roundcube's database?"
    echo "$table $count"
  done >"$scratch/outcome"
}

rm -rf "$scratch/proof" "$scratch/outcome" "$copy/outcome"
[ -s "$password" ] || fail "the Secret with the password is empty"
if [ "$verb" = load ]; then
  case " $* " in *" --go "*) ;; *) echo "database: dry run: nothing was loaded"; exit 0 ;; esac
  [ -s "$dump" ] || fail "the snapshot has no dump"
fi
live=$(sql live "$release") || fail "$host does not let $user in: $(said)"
start_proof || fail "the server that the dump is tried on does not start: $(said)"
tried=$(sql proof "$release") || fail "the server that the dump is tried on does not answer: $(said)"
[ "$live" = "$tried" ] || fail "the server is $live and the image $tried; set jobs.webmail_backup.database_image to the server's release"

if [ "$verb" = save ]; then
  mkdir -p "$copy/database"
  write_dump || fail "the dump breaks off: $(said)"
  must_load
  [ "$(sql live "$tables")" = "$(sql proof "$tables")" ] || fail "the dump lacks tables that the database has"
  mv "$scratch/outcome" "$copy/outcome"
  echo "database: dumped and loaded on trial: $(tr '\n' ' ' <"$copy/outcome")"
else
  must_load
  there=$(sql live "SELECT COUNT(*) FROM users" || echo 0)
  [ "$there" = 0 ] || fail "$name on $host holds $there users. Nothing is overwritten: empty it first (docs/runbooks/restore.md)"
  load live || fail "the dump was not loaded: $(said)"
  echo "database: loaded: $(tr '\n' ' ' <"$scratch/outcome")"
fi
