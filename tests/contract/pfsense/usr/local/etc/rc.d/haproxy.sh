#!/bin/sh
# The package's service script: a start does not look whether HAProxy runs, and a stop ends whatever has its name.
case "$1" in
  start | restart) echo '<?php require_once("haproxy/haproxy.inc"); exit(haproxy_configure());' | /usr/local/bin/php -q ;;
  stop) pkill -x haproxy ;;
esac
