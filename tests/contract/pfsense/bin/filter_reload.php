<?php
usleep(200000);
require_once('config.inc');
require_once('filter.inc');
filter_configure_sync();
