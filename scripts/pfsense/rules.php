<?php
/* Redirects with their pass rules, IPv6 pass rules, bans, aliases: one transaction, so that a redirect and its pass rule always match. */

function edge_rules_unapplied(): void
{
    edge_step('unapplied');
    foreach (['natconf' => 'NAT', 'filter' => 'rules', 'aliases' => 'aliases'] as $subsystem => $menu) {
        if (is_subsystem_dirty($subsystem)) {
            throw new EdgeRefusal('unapplied', "Firewall > {$menu} has unapplied changes; apply or revert them first, then run this again");
        }
    }
}

/** What is ours of the configuration in memory, in the shape of the request. */
function edge_rules_state(array $wanted): array
{
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    $state = ['redirects' => [], 'passes' => [], 'bans' => [], 'aliases' => [], 'cron' => []];
    foreach ($wanted['owned']['redirects'] as $name) {
        $index = edge_find_redirect($nat, $name, $wanted['redirects'][$name] ?? null);
        if ($index !== null) {
            $state['redirects'][$name] = edge_redirect_read($nat[$index], $filters, $wanted['bans'] !== []);
        }
    }
    foreach ($wanted['owned']['passes'] as $name) {
        $index = edge_find_pass($filters, $name, $wanted['passes'][$name] ?? null);
        if ($index !== null) {
            $state['passes'][$name] = edge_filter_read($filters, $index);
        }
    }
    foreach ($wanted['owned']['bans'] as $name) {
        $index = edge_find_ban($filters, $name);
        if ($index !== null) {
            $state['bans'][$name] = edge_ban_read($filters, $index);
        }
    }
    foreach (edge_items('aliases/alias') as $alias) {
        $name = (string) ($alias['name'] ?? '');
        if (isset($wanted['aliases'][$name]) || in_array($name, $wanted['absent_aliases'], true)) {
            $fields = ['type' => '', 'address' => '', 'url' => '', 'updatefreq' => '', 'descr' => ''];
            $state['aliases'][$name] = array_map('strval', array_intersect_key($alias, $fields) + $fields);
        }
    }
    foreach (array_filter(edge_cron_items($wanted['owned']['cron'])) as $command => $item) {
        $state['cron'][$command] = array_diff_key($item, ['command' => 1]);
    }
    return $state;
}

function edge_rules_change(array $wanted): void
{
    edge_step('conflict');
    edge_aliases_change($wanted);
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    foreach ($wanted['owned']['redirects'] as $name) {
        $want = $wanted['redirects'][$name] ?? null;
        $index = edge_find_redirect($nat, $name, $want);
        if ($want !== null) {
            edge_redirect_conflict($nat, $name, $want, $index);
            edge_redirect_write($nat, $filters, $index, $name, $want, $wanted['bans'] !== []);
        } elseif ($index !== null) {
            $linked = edge_linked($filters, $nat[$index]);
            if ($linked !== null) {
                edge_filter_remove($filters, $linked);
            }
            edge_redirect_remove($nat, $index);
        }
    }
    foreach ($wanted['owned']['passes'] as $name) {
        $want = $wanted['passes'][$name] ?? null;
        $index = edge_find_pass($filters, $name, $want);
        if ($want !== null) {
            edge_pass_allowed($name, $want);
            edge_pass_write($filters, $index, $want);
        } elseif ($index !== null) {
            edge_filter_remove($filters, $index);
        }
    }
    edge_bans_change($filters, $wanted);
    edge_cron_change($wanted['cron'] + array_fill_keys($wanted['owned']['cron'], null));
    config_set_path('nat/rule', $nat);
    config_set_path('filter/rule', $filters);
    foreach ($wanted['absent_aliases'] as $alias) {
        $users = edge_alias_users($alias);
        if (edge_has_alias($alias) && $users) {
            throw new EdgeRefusal('conflict', "alias {$alias} cannot be removed: " . implode(', ', $users) . ' still uses it');
        }
        config_set_path('aliases/alias', array_values(array_filter(edge_items('aliases/alias'), fn($item) => ($item['name'] ?? '') !== $alias)));
    }
    foreach ($wanted['redirects'] as $name => $redirect) {
        if (!is_ipaddr($redirect['target']) && !edge_has_alias($redirect['target'])) {
            throw new EdgeRefusal('conflict', "redirect {$name}: its target, the alias {$redirect['target']}, does not exist");
        }
    }
}

/** A rule to an address that its interface does not have would let nothing in. */
function edge_pass_allowed(string $name, array $want): void
{
    if (!config_path_enabled('system', 'ipv6allow')) {
        throw new EdgeRefusal('conflict', "rule {$name}: pf blocks all IPv6 while System > Advanced > Networking > Allow IPv6 is off");
    }
    $interface = edge_address_interface($want['destination']);
    if ($interface === null) {
        throw new EdgeRefusal('conflict', "rule {$name}: no interface of this firewall has the address {$want['destination']} (ipv6_address)");
    }
    if ($interface !== $want['interface']) {
        throw new EdgeRefusal('conflict', "rule {$name}: {$want['destination']} is the address of {$interface}, not of {$want['interface']} (ipv6_interface)");
    }
}

function edge_redirect_remove(array &$nat, int $index): void
{
    $separators = config_get_path('nat/separator', []);
    if (is_array($separators) && $separators) {
        shift_separators($separators, $index, true);
        config_set_path('nat/separator', $separators);
    }
    array_splice($nat, $index, 1);
}

function edge_aliases_change(array $wanted): void
{
    $aliases = edge_items('aliases/alias');
    foreach ($wanted['aliases'] as $name => $want) {
        $index = array_search($name, array_column($aliases, 'name'), true);
        $alias = $index === false ? ['name' => (string) $name, 'detail' => ''] : $aliases[$index];
        if ($index !== false && ($alias['type'] ?? '') !== $want['type']) {
            throw new EdgeRefusal('conflict', "alias {$name} exists and is of type {$alias['type']}, not {$want['type']}");
        }
        if (($alias['address'] ?? '') !== $want['address']) {
            $alias['detail'] = '';  // one remark per address; the old ones would be wrong
        }
        foreach ($want as $field => $value) {
            edge_set($alias, $field, $value);
        }
        $aliases[$index === false ? count($aliases) : $index] = $alias;
    }
    if ($wanted['aliases']) {
        config_set_path('aliases/alias', $aliases);
    }
}

function edge_has_alias(string $name): bool
{
    return in_array($name, array_column(edge_items('aliases/alias'), 'name'), true);
}

/** What uses an alias. The firewall's own check does not look into HAProxy. */
function edge_alias_users(string $alias): array
{
    $users = [];
    $places = [
        ['filter/rule', 'rule', ['source', 'destination']],
        ['nat/rule', 'redirect', ['source', 'destination', 'target', 'local-port']],
        ['nat/onetoone', '1:1 mapping', ['external', 'source', 'destination']],
        ['nat/outbound/rule', 'outbound mapping', ['source', 'destination', 'target', 'sourceport', 'dstport', 'natport']],
        ['staticroutes/route', 'static route', ['network']],
        ['openvpn/openvpn-server', 'OpenVPN server', ['local_network', 'local_networkv6', 'remote_network', 'remote_networkv6']],
        ['openvpn/openvpn-client', 'OpenVPN client', ['remote_network', 'remote_networkv6']],
        ['aliases/alias', 'alias', ['address']],
        [EDGE_FRONTENDS, 'HAProxy frontend', ['a_extaddr', 'ha_acls']],
        [EDGE_POOLS, 'HAProxy pool', ['ha_servers', 'a_acl']],
    ];
    foreach ($places as [$path, $what, $fields]) {
        foreach (edge_items($path) as $item) {
            $words = [];
            $parts = array_intersect_key($item, array_flip($fields));
            array_walk_recursive($parts, function ($value) use (&$words) {
                $words = array_merge($words, preg_split('/[\s,]+/', (string) $value, -1, PREG_SPLIT_NO_EMPTY));
            });
            if (in_array($alias, $words, true) && ($path !== 'aliases/alias' || ($item['name'] ?? '') !== $alias)) {
                $users[] = "{$what} " . ($item['name'] ?? $item['descr'] ?? $item['description'] ?? edge_side($item['destination'] ?? null));
            }
        }
    }
    return $users;
}

/** No redirect may point to HAProxy, and no rule let IPv6 in, before mail gets through it. */
function edge_gate(array $wanted): void
{
    edge_step('gate');
    if (!$wanted['gates']) {
        return;
    }
    $closed = [];
    edge_wait(8, function () use ($wanted, &$closed) {
        $stat = edge_haproxy_stat();
        $closed = array_filter($wanted['gates'], fn($gate) => !edge_pool_is_up($stat, $gate['pool']));
        return !$closed;
    });
    if ($closed) {
        throw new EdgeRefusal('gate', 'no server of ' . implode(', ', array_column($closed, 'pool')) . ' has passed a check in HAProxy');
    }
    foreach ($wanted['gates'] as $name => $gate) {
        $heard = edge_greeting($gate, 10);
        if (!str_starts_with($heard, $gate['banner'])) {
            $where = edge_write_endpoint($gate['address'], $gate['port']);
            throw new EdgeRefusal('gate', "frontend {$name}: {$where} answers " . edge_heard($heard) . ", not the mail server's `{$gate['banner']} …`");
        }
    }
}

/** The first line that a mail service says, or an empty text. */
function edge_greeting(array $service, int $seconds): string
{
    $where = edge_write_endpoint($service['address'], $service['port']);
    $context = stream_context_create(['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]);
    $scheme = $service['tls'] ? 'tls' : 'tcp';
    $socket = @stream_socket_client("{$scheme}://{$where}", $number, $error, $seconds, STREAM_CLIENT_CONNECT, $context);
    if (!$socket) {
        return '';
    }
    stream_set_timeout($socket, $seconds);
    $line = (string) fgets($socket, 512);
    fclose($socket);
    return trim($line);
}

function edge_heard(string $line): string
{
    return $line === '' ? 'nothing' : '`' . substr($line, 0, 100) . '`';
}

/** Whether the legacy address still is a mail server: it may belong to another service by now. @return list<string> */
function edge_rules_warnings(array $wanted): array
{
    uasort($wanted['legacy'], fn($one, $other) => $one['port'] <=> $other['port']);
    foreach ($wanted['legacy'] as $name => $service) {
        $heard = edge_greeting($service, 3);
        if (!str_starts_with($heard, $service['banner'])) {
            $where = edge_write_endpoint($service['address'], $service['port']);
            return ["the legacy address is not a mail server: {$where} ({$name}) answers " . edge_heard($heard) . ", not `{$service['banner']} …`. "
                . 'Another service may have it, or it is not in the address pool any more; a roll-back would lose mail'];
        }
    }
    return [];
}

/** Whether a change sends new traffic to HAProxy; only that needs the gate, not a repair of what points there already. */
function edge_sends_to_haproxy(array $before, array $wanted): bool
{
    foreach ($wanted['redirects'] as $name => $want) {
        $have = $before['redirects'][$name] ?? null;
        if (!$have || $have['target'] !== $want['target'] || $have['local_port'] !== $want['local_port'] || $have['disabled']) {
            return true;
        }
    }
    return array_diff_key($wanted['passes'], $before['passes']) !== [];
}

function edge_rules_own(array $wanted): array
{
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    $own = ['nat' => [], 'filter' => [], 'aliases' => [], 'cron' => edge_cron_items($wanted['owned']['cron'])];
    foreach ($wanted['owned']['redirects'] as $name) {
        $index = edge_find_redirect($nat, $name, $wanted['redirects'][$name] ?? null);
        $own['nat'][$name] = $index === null ? null : $nat[$index];
        $linked = $index === null ? null : edge_linked($filters, $nat[$index]);
        $own['filter']["NAT {$name}"] = $linked === null ? null : $filters[$linked];
    }
    foreach ($wanted['owned']['passes'] as $name) {
        $index = edge_find_pass($filters, $name, $wanted['passes'][$name] ?? null);
        $own['filter'][$name] = $index === null ? null : $filters[$index];
    }
    foreach ($wanted['owned']['bans'] as $name) {
        $index = edge_find_ban($filters, $name);
        $own['filter'][$name] = $index === null ? null : $filters[$index];
    }
    $aliases = array_column(edge_items('aliases/alias'), null, 'name');
    foreach ([...array_keys($wanted['aliases']), ...$wanted['absent_aliases']] as $name) {
        $own['aliases'][$name] = $aliases[$name] ?? null;
    }
    return $own;
}

/** Put our rules back as they were, whatever else changed meanwhile. Writes only what differs. */
function edge_rules_undo(array $previous, array $wanted): void
{
    edge_fresh_read();
    $own = fn() => edge_rules_own($wanted);
    $now = $own();
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    foreach ($previous['nat'] as $name => $rule) {
        $index = edge_find_redirect($nat, $name, $wanted['redirects'][$name] ?? null);
        $linked = $index === null ? null : edge_linked($filters, $nat[$index]);
        edge_filter_put_back($filters, $linked, $previous['filter']["NAT {$name}"]);
        if ($index !== null && $rule === null) {
            edge_redirect_remove($nat, $index);
        } elseif ($rule !== null) {
            $nat[$index ?? count($nat)] = $rule;
        }
    }
    foreach ($wanted['owned']['passes'] as $name) {
        edge_filter_put_back($filters, edge_find_pass($filters, $name, $wanted['passes'][$name] ?? null), $previous['filter'][$name]);
    }
    $aliases = edge_items('aliases/alias');
    foreach ($previous['aliases'] as $name => $alias) {
        $aliases = array_values(array_filter($aliases, fn($item) => ($item['name'] ?? '') !== $name || $alias !== null));
        $index = array_search($name, array_column($aliases, 'name'), true);
        if ($alias !== null) {
            $aliases[$index === false ? count($aliases) : $index] = $alias;
        }
    }
    config_set_path('aliases/alias', $aliases);  // the place of a ban depends on the alias of its ports
    edge_bans_put_back($filters, $wanted['owned']['bans'], $previous['filter']);
    edge_cron_change($previous['cron'] ?? []);
    config_set_path('nat/rule', $nat);
    config_set_path('filter/rule', $filters);
    if (edge_without_empty($own()) != edge_without_empty($now)) {
        edge_commit('mailserver: back to the redirects and rules before the failed change', $own);
    }
    configure_cron();
    filter_configure();
    edge_journal_clear('rules');
}

function edge_filter_put_back(array &$filters, ?int $index, ?array $rule): void
{
    if ($rule !== null) {
        edge_filter_place($filters, $index, $rule);
    } elseif ($index !== null) {
        edge_filter_remove($filters, $index);
    }
}

/** @return array{changed: bool, before: array, after: array, warnings: list<string>} */
function edge_rules_plan(array $wanted): array
{
    edge_step('precondition');
    edge_fresh_read();
    $before = edge_rules_state($wanted);
    edge_rules_change($wanted);
    $after = edge_rules_state($wanted);
    return [
        'changed' => $before !== $after || edge_pf_problem($wanted) !== null, 'before' => $before, 'after' => $after,
        'warnings' => edge_rules_warnings($wanted),
    ];
}

/** @return array{changed: bool, before: array, after: array, warnings: list<string>} */
function edge_rules_apply(array $wanted): array
{
    edge_lock();
    edge_step('precondition');
    edge_carp_master();
    edge_rules_unapplied();
    edge_fresh_read();
    $before = edge_rules_state($wanted);
    $previous = edge_journal_read('rules', edge_rules_own($wanted));
    edge_rules_change($wanted);
    $after = edge_rules_state($wanted);
    $changed = $before !== $after;
    $warnings = edge_rules_warnings($wanted);
    if (!$changed && edge_pf_problem($wanted) === null) {
        edge_journal_clear('rules');
        return ['changed' => false, 'before' => $before, 'after' => $after, 'warnings' => $warnings];
    }
    if (edge_sends_to_haproxy($before, $wanted)) {
        edge_gate($wanted);
    }
    $undo = fn() => edge_rules_undo($previous, $wanted);
    edge_run()->undo = $undo;
    $description = $changed ? 'mailserver: redirects, pass rules and alias' : null;
    edge_journaled_commit('rules', $previous, fn() => edge_rules_own($wanted), $description);
    $problem = fn() => edge_pf_problem($wanted) ?? edge_pf_leftover($before, $wanted);
    edge_or_roll_back(function () use ($problem, $wanted) {
        edge_bans_prepare($wanted);
        edge_filter_reload($problem);
    }, $undo);
    edge_journal_clear('rules');
    edge_run()->undo = null;
    edge_bans_clean($before, $wanted);
    $warnings = [...$warnings, ...edge_bans_load($wanted)];
    return ['changed' => true, 'before' => $before, 'after' => $after, 'warnings' => $warnings];
}
