#!/usr/bin/env php
<?php
// Run by the image after its own set-up, in the document root: makes the tables that a third-party plugin wants and the database lacks.

define('INSTALL_PATH', getcwd() . '/');
require INSTALL_PATH . 'program/include/clisetup.php';

$db = rcmail_utils::db();
foreach (rcube::get_instance()->config->get('plugins') as $plugin) {
    $folder = INSTALL_PATH . "plugins/$plugin/SQL";
    $script = "$folder/{$db->db_provider}.initial.sql";
    if (!is_file($script)) {
        continue;
    }
    preg_match_all('/^\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?[`"\[]?(\w+)/mi', file_get_contents($script), $tables);
    $missing = array_udiff(array_map([$db, 'table_name'], $tables[1]), (array) $db->list_tables(), 'strcasecmp');
    if ($missing) {
        echo "plugin-tables: $plugin wants " . implode(', ', $missing) . "\n";
        rcmail_utils::db_init($folder); // ends the program where it fails, and with it the start
    }
}
