<?php
/*
 * Bans: rules in front of ours that never refuse our own networks and refuse what a table lists, and the cron job that loads the table.
 *
 * The table is pfSense's own: an alias of type urltable, whose file the core's rc.update_urltables fetches. The core leaves out a rule whose
 * list is empty, keeps a list that it cannot fetch, and then touches its file; so a list always has one entry that says when it was checked.
 */

const EDGE_TABLES = '/var/db/aliastables';  // fixed in the core too
const EDGE_CRONTAB = '/etc/crontab';
const EDGE_SIGN = '2001:db8::';  // the last 32 bits are a Unix time; none: nothing was loaded yet
const EDGE_LOAD_SECONDS = 15;

function edge_find_ban(array $filters, string $name): ?int
{
    return edge_find($filters, $name, null, 'rules', fn() => false);
}

/** The index of the first rule, floating or of the ban's interface, that passes from anywhere what the ban is about; or null. */
function edge_first_pass(array $filters, array $ban, bool $floating): ?int
{
    foreach ($filters as $index => $rule) {
        foreach (($rule['type'] ?? 'pass') === 'pass' ? edge_ports($ban['port']) : [] as [$port]) {
            if (edge_decides($rule, $ban['interface'], $ban['ipprotocol'], $ban['destination'], (string) $port, $floating)) {
                return $index;
            }
        }
    }
    return null;
}

/** A ban's rule in the shape of the request; `overruled_by` is the rule in front of it that decides otherwise. */
function edge_ban_read(array $filters, int $index): array
{
    $ban = array_diff_key(edge_filter_read($filters, $index), ['blocked_by' => 1]);
    if ($ban['type'] === 'block') {
        $first = edge_first_pass($filters, $ban, true) ?? edge_first_pass(array_slice($filters, 0, $index), $ban, false);
    } else {
        $blocks = fn($rule) => ($rule['type'] ?? '') === 'block' && ($rule['destination']['port'] ?? '') === $ban['port']
            && ($rule['interface'] ?? '') === $ban['interface'] && ($rule['ipprotocol'] ?? '') === $ban['ipprotocol'];
        $first = array_key_first(array_filter(array_slice($filters, 0, $index), $blocks));
    }
    return $ban + ['overruled_by' => $first === null ? '' : ((string) ($filters[$first]['descr'] ?? '') ?: 'a rule without a description')];
}

function edge_bans_change(array &$filters, array $wanted): void
{
    foreach (array_diff($wanted['owned']['bans'], array_keys($wanted['bans'])) as $name) {
        $index = edge_find_ban($filters, $name);
        if ($index !== null) {
            edge_filter_remove($filters, $index);
        }
    }
    $pairs = [];
    foreach ($wanted['bans'] as $want) {
        $pairs["{$want['interface']} {$want['ipprotocol']}"][$want['type']] = $want;
    }
    foreach ($pairs as $pair) {
        edge_ban_pair($filters, $pair['pass'], $pair['block']);
    }
}

/** Write both rules of a family: whom the list must not hit, then the list, both in front of the first rule that passes mail. */
function edge_ban_pair(array &$filters, array $never, array $banned): void
{
    $floating = edge_first_pass($filters, $banned, true);
    if ($floating !== null) {
        throw new EdgeRefusal('conflict', "the floating rule `{$filters[$floating]['descr']}` passes mail before {$banned['descr']} is asked; "
            . 'move it to the interface, or turn its Quick off');
    }
    $places = [edge_find_ban($filters, $never['descr']), edge_find_ban($filters, $banned['descr'])];
    $rules = [];
    foreach ([$never, $banned] as $number => $want) {
        $rules[] = $places[$number] === null ? edge_new_filter($want) : edge_filter_write($filters[$places[$number]], $want);
    }
    $first = edge_first_pass($filters, $banned, false) ?? count($filters);
    if ($places[0] !== null && $places[0] < ($places[1] ?? -1) && $places[1] < $first) {
        [$filters[$places[0]], $filters[$places[1]]] = $rules;
        return;
    }
    rsort($places);
    foreach (array_filter($places, 'is_int') as $index) {
        edge_filter_remove($filters, $index);
    }
    foreach ($rules as $rule) {
        edge_ban_insert($filters, $rule);
    }
}

function edge_ban_insert(array &$filters, array $rule): void
{
    $ban = ['destination' => edge_side($rule['destination']), 'port' => $rule['destination']['port']] + $rule;
    $first = edge_first_pass($filters, $ban, false);
    if ($first !== null) {
        edge_separators($filters, $rule['interface'], $first, false);
    }
    array_splice($filters, $first ?? count($filters), 0, [$rule]);
}

/** Put the rules of bans back as they were; `$previous` by name. */
function edge_bans_put_back(array &$filters, array $names, array $previous): void
{
    foreach ($names as $name) {
        $index = edge_find_ban($filters, $name);
        $rule = $previous[$name] ?? null;
        if ($rule === null && $index !== null) {
            edge_filter_remove($filters, $index);
        } elseif ($rule !== null && $index !== null) {
            $filters[$index] = $rule;
        } elseif ($rule !== null) {
            edge_ban_insert($filters, $rule);
        }
    }
}

/** @return array<string, ?array> cron item by command, null for one that does not exist */
function edge_cron_items(array $commands): array
{
    return array_replace(array_fill_keys($commands, null), array_intersect_key(array_column(edge_items('cron/item'), null, 'command'), array_flip($commands)));
}

/** Set or remove cron items by command; all of them are written, because 2.7.2 cannot append to a list. */
function edge_cron_change(array $wanted): void
{
    $items = edge_items('cron/item');
    foreach ($wanted as $command => $item) {
        $index = array_search($command, array_column($items, 'command'), true);
        if ($item !== null) {
            $items[$index === false ? count($items) : $index] = $item + ['command' => $command];
        } elseif ($index !== false) {
            array_splice($items, $index, 1);
        }
    }
    if ($items !== edge_items('cron/item')) {
        config_set_path('cron/item', $items);
    }
}

/** Make ready what the filter and cron read from files: a table without a file would leave its rule out. */
function edge_bans_prepare(array $wanted): void
{
    foreach (array_keys(array_filter($wanted['aliases'], fn($alias) => $alias['type'] === 'urltable')) as $table) {
        $file = EDGE_TABLES . "/{$table}.txt";
        if (!is_file($file) || trim((string) file_get_contents($file)) === '') {
            is_dir(EDGE_TABLES) || mkdir(EDGE_TABLES, 0755, true);
            file_put_contents($file, EDGE_SIGN . "\n");
        }
    }
    configure_cron();
}

/** Load the tables now rather than at cron's next turn. @return list<string> what is missing: a list that cannot be had must not stop mail */
function edge_bans_load(array $wanted): array
{
    $warnings = [];
    foreach (array_keys($wanted['cron']) as $command) {
        exec("{$command} >/dev/null 2>&1 &");
    }
    foreach (array_keys(array_filter($wanted['aliases'], fn($alias) => $alias['type'] === 'urltable')) as $table) {
        if (!edge_wait(EDGE_LOAD_SECONDS, fn() => edge_table($table)['checked'] > 0)) {
            $warnings[] = "the table {$table} was not loaded from {$wanted['aliases'][$table]['url']} within " . EDGE_LOAD_SECONDS
                . ' seconds, so no list of bans is in force yet; cron tries again';
        }
    }
    return $warnings;
}

/** Delete the files of tables that are gone. */
function edge_bans_clean(array $before, array $wanted): void
{
    foreach (array_diff_key($before['aliases'], $wanted['aliases']) as $table => $alias) {
        $file = EDGE_TABLES . "/{$table}.txt";
        if ($alias['type'] === 'urltable' && is_file($file)) {
            unlink($file);
        }
    }
}

/** @return array{entries: list<string>, checked: int} what pf has in a table, and when the list was checked (Unix time, 0: never) */
function edge_table(string $table): array
{
    exec('pfctl -q -t ' . escapeshellarg($table) . ' -T show 2>/dev/null', $lines);
    $found = ['entries' => [], 'checked' => 0];
    foreach (array_map('trim', $lines) as $entry) {
        $packed = is_ipaddr($entry) ? inet_pton($entry) : '';
        if (strlen($packed) === 16 && substr($packed, 0, 12) === substr(inet_pton(EDGE_SIGN), 0, 12)) {
            $found['checked'] = max($found['checked'], unpack('N', substr($packed, 12))[1]);
        } elseif ($entry !== '') {
            $found['entries'][] = $entry;
        }
    }
    return $found;
}

/** @return ?array{entries: int, checked: int, now: int} the table that pf refuses; null where no bans are declared */
function edge_bans_health(array $wanted): ?array
{
    foreach ($wanted['bans'] as $want) {
        if ($want['type'] === 'block') {
            $table = edge_table($want['source']);
            return ['entries' => count($table['entries']), 'checked' => $table['checked'], 'now' => time()];
        }
    }
    return null;
}

/** What pf and cron lack of the bans, or null. Whether a list could be fetched does not count. */
function edge_bans_problem(array $wanted, array $rules): ?string
{
    foreach ($wanted['bans'] as $name => $want) {
        [$interface, $targets] = [(string) get_real_interface($want['interface']), edge_pf_targets($want['destination'])];
        foreach (edge_ports($want['port']) as [$port]) {
            $rule = edge_pf_decides($rules, $interface, $want['ipprotocol'], $targets, (string) $port, ['any', "<{$want['source']}>"]);
            if ($rule === null || $rule['label'] !== $name) {
                return "pf does not ask the rule {$name} about port {$port}" . ($rule === null ? '' : ": the rule `{$rule['label']}` comes first");
            }
        }
        if ($want['type'] === 'pass') {
            $listed = preg_replace('/\/(32|128)$/', '', edge_table($want['source'])['entries']);
            foreach (preg_split('/\s+/', $wanted['aliases'][$want['source']]['address']) as $network) {
                if (!in_array(preg_replace('/\/(32|128)$/', '', $network), $listed, true)) {
                    return "pf's table {$want['source']} lacks {$network}";
                }
            }
        }
    }
    $crontab = is_file(EDGE_CRONTAB) ? (string) file_get_contents(EDGE_CRONTAB) : '';
    foreach (array_keys($wanted['cron']) as $command) {
        if (!str_contains($crontab, $command)) {
            return "cron does not run {$command}";
        }
    }
    return null;
}
