<?php
// What the firewall does by itself when it starts: everything from config.xml, nothing from before.
require_once('config.inc');
require_once('filter.inc');
filter_configure_sync();
if (stream_resolve_include_path('haproxy/haproxy.inc')) {
    require_once('haproxy/haproxy.inc');
    exit(haproxy_configure());
}
