<?php
/* Redirects with their pass rules, IPv6 pass rules, the alias: one transaction, so that a redirect never leads past its pass rule. */

function edge_rules_unapplied(): void
{
    edge_step('unapplied');
    foreach (['natconf' => 'NAT', 'filter' => 'rules', 'aliases' => 'aliases'] as $subsystem => $menu) {
        if (is_subsystem_dirty($subsystem)) {
            throw new EdgeRefusal('unapplied', "Firewall > {$menu} has changes that nobody applied; apply or revert them first, then run this again");
        }
    }
}

/** What is ours of the configuration in memory, in the shape of the request. */
function edge_rules_state(array $wanted): array
{
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    $state = ['redirects' => [], 'passes' => [], 'aliases' => []];
    foreach ($wanted['owned']['redirects'] as $name) {
        $index = edge_find_redirect($nat, $name, $wanted['redirects'][$name] ?? null);
        if ($index !== null) {
            $state['redirects'][$name] = edge_redirect_read($nat[$index], $filters);
        }
    }
    foreach ($wanted['owned']['passes'] as $name) {
        $index = edge_find_pass($filters, $name, $wanted['passes'][$name] ?? null);
        if ($index !== null) {
            $state['passes'][$name] = edge_filter_read($filters[$index]);
        }
    }
    foreach (edge_items('aliases/alias') as $alias) {
        $name = (string) ($alias['name'] ?? '');
        if (isset($wanted['aliases'][$name]) || in_array($name, $wanted['absent_aliases'], true)) {
            $state['aliases'][$name] = ['type' => $alias['type'] ?? '', 'address' => $alias['address'] ?? '', 'descr' => $alias['descr'] ?? ''];
        }
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
            edge_redirect_write($nat, $filters, $index, $name, $want);
        } elseif ($index !== null) {
            $linked = edge_linked($filters, $nat[$index]);
            if ($linked !== null) {
                array_splice($filters, $linked, 1);
            }
            array_splice($nat, $index, 1);
        }
    }
    foreach ($wanted['owned']['passes'] as $name) {
        $want = $wanted['passes'][$name] ?? null;
        $index = edge_find_pass($filters, $name, $want);
        if ($want !== null) {
            edge_pass_write($filters, $index, $name, $want);
        } elseif ($index !== null) {
            array_splice($filters, $index, 1);
        }
    }
    config_set_path('nat/rule', $nat);
    config_set_path('filter/rule', $filters);
    foreach ($wanted['absent_aliases'] as $alias) {
        $users = edge_alias_users($alias);
        if (edge_has_alias($alias) && $users) {
            throw new EdgeRefusal('conflict', "alias {$alias} cannot go: " . implode(', ', $users) . ' still refers to it');
        }
        config_set_path('aliases/alias', array_values(array_filter(edge_items('aliases/alias'), fn($item) => ($item['name'] ?? '') !== $alias)));
    }
    foreach ($wanted['redirects'] as $name => $redirect) {
        if (!is_ipaddr($redirect['target']) && !edge_has_alias($redirect['target'])) {
            throw new EdgeRefusal('conflict', "redirect {$name}: there is no alias {$redirect['target']} to lead to");
        }
    }
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
            $alias['detail'] = '';  // one remark per address: those of other addresses would be wrong
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

/** Who refers to an alias. The firewall's own check does not look into HAProxy. */
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

/** No redirect may lead to HAProxy, and no rule let IPv6 in, before mail is seen to come through it. */
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
        $where = edge_write_endpoint($gate['address'], $gate['port']);
        $context = stream_context_create(['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]);
        $scheme = $gate['tls'] ? 'tls' : 'tcp';
        $socket = @stream_socket_client("{$scheme}://{$where}", $number, $error, 10, STREAM_CLIENT_CONNECT, $context);
        $line = '';
        if ($socket) {
            stream_set_timeout($socket, 10);
            $line = (string) fgets($socket, 512);
            fclose($socket);
        }
        if (!str_starts_with($line, $gate['banner'])) {
            $heard = trim($line) === '' ? 'nothing' : '`' . substr(trim($line), 0, 100) . '`';
            throw new EdgeRefusal('gate', "frontend {$name}: {$where} answers {$heard}, not the mail server's `{$gate['banner']} …`");
        }
    }
}

/** Whether a change leads new traffic to HAProxy; only that needs the gate, not a repair of what leads there already. */
function edge_leads_to_haproxy(array $before, array $wanted): bool
{
    foreach ($wanted['redirects'] as $name => $want) {
        $have = $before['redirects'][$name] ?? null;
        if (!$have || $have['target'] !== $want['target'] || $have['local_port'] !== $want['local_port'] || $have['disabled']) {
            return true;
        }
    }
    return array_diff_key($wanted['passes'], $before['passes']) !== [];
}

/** What pf itself lacks of what is wanted, or null: `-P` prints ports as numbers, and older pfctl prints names all the same. */
function edge_pf_problem(array $wanted): ?string
{
    exec('pfctl -P -sn 2>/dev/null', $nat, $failed);
    exec('pfctl -P -sr 2>/dev/null', $filters, $failed_too);
    if ($failed || $failed_too) {
        return 'pfctl does not answer';
    }
    foreach ($wanted['redirects'] as $name => $want) {
        $to = edge_pf_target($want['target']);
        $port = edge_pf_port($want['port']);
        if (!preg_grep("/^rdr .*\\bproto tcp .*port = {$port}\\b.* -> {$to}( port {$want['local_port']})?( |$)/", $nat)) {
            return "pf has no redirect of port {$want['port']} to {$want['target']} ({$name})";
        }
        $local = edge_pf_port($want['local_port']);
        $passes = preg_grep("/^rdr pass .*port = {$port}\\b.* -> {$to}( |$)/", $nat)
            || preg_grep("/^pass in .*\\bproto tcp .* to {$to} port = {$local}\\b/", $filters);
        if (!$passes) {
            return "pf lets nothing through to {$want['target']} port {$want['local_port']} ({$name})";
        }
    }
    foreach ($wanted['passes'] as $name => $want) {
        $to = edge_pf_target($want['destination']);
        $port = edge_pf_port($want['port']);
        if (!preg_grep("/^pass in .*\\b{$want['ipprotocol']} proto tcp .* to {$to} port = {$port}\\b/", $filters)) {
            return "pf lets nothing through to {$want['destination']} port {$want['port']} ({$name})";
        }
    }
    return null;
}

function edge_pf_port(string $port): string
{
    $name = getservbyport((int) $port, 'tcp');
    return $name === false ? $port : "({$port}|" . preg_quote($name, '/') . ')';
}

function edge_pf_target(string $target): string
{
    if (is_ipaddr($target)) {
        return preg_quote($target, '/');
    }
    $addresses = [];
    foreach (edge_items('aliases/alias') as $alias) {
        if (($alias['name'] ?? '') === $target) {
            $addresses = array_map(fn($address) => preg_quote($address, '/'), explode(' ', (string) $alias['address']));
        }
    }
    return '(' . implode('|', ['<' . preg_quote($target, '/') . '>', ...$addresses]) . ')';
}

function edge_rules_own(array $wanted): array
{
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    $own = ['nat' => [], 'filter' => [], 'aliases' => []];
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
    $aliases = array_column(edge_items('aliases/alias'), null, 'name');
    foreach ([...array_keys($wanted['aliases']), ...$wanted['absent_aliases']] as $name) {
        $own['aliases'][$name] = $aliases[$name] ?? null;
    }
    return $own;
}

/** Put our rules back as they were, whatever else changed meanwhile. */
function edge_rules_undo(array $previous, array $wanted): void
{
    edge_fresh_read();
    $nat = edge_items('nat/rule');
    $filters = edge_items('filter/rule');
    foreach ($previous['nat'] as $name => $rule) {
        $index = edge_find_redirect($nat, $name, $wanted['redirects'][$name] ?? null);
        $linked = $index === null ? null : edge_linked($filters, $nat[$index]);
        edge_put_back($filters, $linked, $previous['filter']["NAT {$name}"]);
        edge_put_back($nat, $index, $rule);
    }
    foreach ($wanted['owned']['passes'] as $name) {
        edge_put_back($filters, edge_find_pass($filters, $name, $wanted['passes'][$name] ?? null), $previous['filter'][$name]);
    }
    $aliases = edge_items('aliases/alias');
    foreach ($previous['aliases'] as $name => $alias) {
        $index = array_search($name, array_column($aliases, 'name'), true);
        edge_put_back($aliases, $index === false ? null : $index, $alias);
    }
    config_set_path('nat/rule', $nat);
    config_set_path('filter/rule', $filters);
    config_set_path('aliases/alias', $aliases);
    edge_commit('mailserver: back to the redirects and rules before the failed change');
    filter_configure();
    edge_journal_clear('rules');
}

function edge_put_back(array &$items, ?int $index, ?array $item): void
{
    if ($index === null && $item !== null) {
        $items[] = $item;
    } elseif ($index !== null && $item === null) {
        array_splice($items, $index, 1);
    } elseif ($index !== null) {
        $items[$index] = $item;
    }
}

/** @return array{changed: bool, before: array, after: array} */
function edge_rules_plan(array $wanted): array
{
    edge_step('precondition');
    edge_fresh_read();
    $before = edge_rules_state($wanted);
    edge_rules_change($wanted);
    $after = edge_rules_state($wanted);
    return ['changed' => $before !== $after || edge_pf_problem($wanted) !== null, 'before' => $before, 'after' => $after];
}

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
    if (!$changed && edge_pf_problem($wanted) === null) {
        edge_journal_clear('rules');
        return ['changed' => false, 'before' => $before, 'after' => $after];
    }
    if (edge_leads_to_haproxy($before, $wanted)) {
        edge_gate($wanted);
    }
    $undo = fn() => edge_rules_undo($previous, $wanted);
    edge_run()->undo = $undo;
    $description = $changed ? 'mailserver: redirects, pass rules and alias' : null;
    edge_journaled_commit('rules', $previous, edge_rules_own($wanted), $description);
    edge_or_roll_back(function () use ($wanted) {
        edge_step('apply');
        filter_configure();
        edge_step('verify');
        // The reload is asynchronous and reports nothing: pf's own rules are the only verdict.
        $problem = null;
        $loaded = edge_wait(30, function () use ($wanted, &$problem) {
            return ($problem = edge_pf_problem($wanted)) === null;
        });
        if (!$loaded) {
            throw new EdgeRefusal('verify', "{$problem}, 30 seconds after the filter was told to reload");
        }
    }, $undo);
    edge_journal_clear('rules');
    return ['changed' => true, 'before' => $before, 'after' => $after];
}
