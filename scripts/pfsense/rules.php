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

/** A side of a rule as text: any, wanip, an address, the name of an alias; `not ` in front when it is inverted. */
function edge_side(mixed $side): string
{
    if (!is_array($side)) {
        return 'any';
    }
    $text = (string) ($side['network'] ?? $side['address'] ?? 'any');
    $text .= ($side['port'] ?? '') !== '' && isset($side['any']) ? ":{$side['port']}" : '';
    return (isset($side['not']) ? 'not ' : '') . $text;
}

function edge_destination(string $destination, string $port): array
{
    return [is_ipaddr($destination) || is_alias($destination) ? 'address' : 'network' => $destination, 'port' => $port];
}

/** Every port that a port, a range `a-b` or `a:b`, or a port alias covers. */
function edge_ports(string $text): array
{
    $ports = [];
    foreach (preg_split('/[\s,]+/', $text, -1, PREG_SPLIT_NO_EMPTY) as $part) {
        if (preg_match('/^(\d+)[-:](\d+)$/', $part, $match)) {
            $ports[] = [(int) $match[1], (int) $match[2]];
        } elseif (is_numeric($part)) {
            $ports[] = [(int) $part, (int) $part];
        } else {
            foreach (edge_items('aliases/alias') as $alias) {
                if (($alias['name'] ?? '') === $part && $part !== $text) {
                    continue;  // an alias within itself
                }
                if (($alias['name'] ?? '') === $part) {
                    $ports = array_merge($ports, edge_ports((string) $alias['address']));
                }
            }
        }
    }
    return $ports;
}

function edge_covers(string $text, string $port): bool
{
    return $text === $port || array_filter(edge_ports($text), fn($range) => $range[0] <= (int) $port && (int) $port <= $range[1]) !== [];
}

function edge_destinations_meet(string $one, string $other, string $interface): bool
{
    $resolve = fn($side) => $side === "{$interface}ip" ? (string) get_interface_ip($interface) : $side;
    return $one === $other || $one === 'any' || $other === 'any' || $resolve($one) === $resolve($other);
}

/** The index of the redirect that is ours: by its description, or else the one that takes this very traffic. */
function edge_find_redirect(array $rules, string $name, ?array $want): ?int
{
    foreach ($rules as $index => $rule) {
        if (($rule['descr'] ?? '') === $name) {
            $found[] = $index;
        }
    }
    foreach (isset($found) || $want === null ? [] : $rules as $index => $rule) {
        $same = ($rule['interface'] ?? '') === $want['interface'] && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol'];
        $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
        $port = (string) ($destination['port'] ?? '');
        if ($same && $port === $want['port'] && edge_destinations_meet(edge_side($destination), $want['destination'], $want['interface'])) {
            $found[] = $index;
        }
    }
    if (count($found ?? []) > 1) {
        throw new EdgeRefusal('conflict', "two redirects could be `{$name}`; keep one, or give the other another port or destination");
    }
    return $found[0] ?? null;
}

function edge_find_pass(array $rules, string $name, ?array $want): ?int
{
    foreach ($rules as $index => $rule) {
        if (($rule['descr'] ?? '') === $name) {
            $found[] = $index;
        }
    }
    foreach (isset($found) || $want === null ? [] : $rules as $index => $rule) {
        $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
        $same = ($rule['type'] ?? 'pass') === 'pass' && ($rule['interface'] ?? '') === $want['interface'] && !isset($rule['associated-rule-id'])
            && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol'] && ($rule['protocol'] ?? '') === $want['protocol'];
        if ($same && ($destination['address'] ?? '') === $want['destination'] && ($destination['port'] ?? '') === $want['port']) {
            $found[] = $index;
        }
    }
    if (count($found ?? []) > 1) {
        throw new EdgeRefusal('conflict', "two rules could be `{$name}`; keep one of them");
    }
    return $found[0] ?? null;
}

/** The pass rule that belongs to a redirect; without it, pf drops what was redirected. */
function edge_linked(array $filters, array $redirect): ?int
{
    $id = (string) ($redirect['associated-rule-id'] ?? '');
    foreach ($id === '' || $id === 'pass' ? [] : $filters as $index => $rule) {
        if (($rule['associated-rule-id'] ?? '') === $id) {
            return $index;
        }
    }
    return null;
}

/** A redirect in the shape of the request; `pass_rule` is what its pass rule really lets through. */
function edge_redirect_read(array $rule, array $filters): array
{
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    $port = (string) ($destination['port'] ?? '');
    $local = (string) ($rule['local-port'] ?? '');
    $linked = edge_linked($filters, $rule);
    if (($rule['associated-rule-id'] ?? '') === 'pass') {
        $pass = edge_write_endpoint((string) $rule['target'], $local);  // `rdr pass` lets through whatever it redirects
    } elseif ($linked === null) {
        $pass = 'missing';
    } else {
        $pass = edge_pass_text($filters[$linked]);
    }
    return [
        'interface' => (string) ($rule['interface'] ?? ''),
        'ipprotocol' => (string) ($rule['ipprotocol'] ?? 'inet'),
        'protocol' => (string) ($rule['protocol'] ?? ''),
        'source' => edge_side($rule['source'] ?? null),
        'destination' => edge_side($destination),
        'port' => $port,
        'target' => (string) ($rule['target'] ?? ''),
        'local_port' => $local === '' ? $port : $local,
        'pass_rule' => $pass,
        'disabled' => isset($rule['disabled']) || isset($rule['nordr']) ? 'yes' : '',
        'descr' => (string) ($rule['descr'] ?? ''),
    ];
}

function edge_pass_text(array $rule): string
{
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    $flaws = array_keys(array_filter([
        'disabled' => isset($rule['disabled']),
        'not a pass rule' => ($rule['type'] ?? 'pass') !== 'pass',
        'only from ' . edge_side($rule['source'] ?? null) => edge_side($rule['source'] ?? null) !== 'any',
    ]));
    $text = edge_write_endpoint(edge_side($destination), (string) ($destination['port'] ?? ''));
    return $flaws ? "{$text} (" . implode(', ', $flaws) . ')' : $text;
}

function edge_filter_read(array $rule): array
{
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    return [
        'type' => (string) ($rule['type'] ?? 'pass'),
        'interface' => (string) ($rule['interface'] ?? ''),
        'ipprotocol' => (string) ($rule['ipprotocol'] ?? 'inet'),
        'protocol' => (string) ($rule['protocol'] ?? ''),
        'source' => edge_side($rule['source'] ?? null),
        'destination' => edge_side($destination),
        'port' => (string) ($destination['port'] ?? ''),
        'disabled' => isset($rule['disabled']) ? 'yes' : '',
        'descr' => (string) ($rule['descr'] ?? ''),
    ];
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

/** pf takes the first redirect that matches, so one that covers our port before ours would make ours dead text. */
function edge_redirect_conflict(array $nat, string $name, array $want, ?int $ours): void
{
    foreach ($nat as $index => $rule) {
        $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
        $meets = $index !== $ours && !isset($rule['disabled']) && ($rule['interface'] ?? '') === $want['interface']
            && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol'] && str_contains($rule['protocol'] ?? '', 'tcp');
        if ($meets && edge_covers((string) ($destination['port'] ?? ''), $want['port'])
            && edge_destinations_meet(edge_side($destination), $want['destination'], $want['interface'])) {
            throw new EdgeRefusal('conflict', "the redirect `{$rule['descr']}` on {$want['interface']} takes port {$want['port']} too, beside {$name}");
        }
    }
}

function edge_redirect_write(array &$nat, array &$filters, ?int $index, string $name, array $want): void
{
    $rule = $index === null
        ? ['source' => ['any' => ''], 'destination' => [], 'associated-rule-id' => '', 'created' => edge_stamp()]
        : $nat[$index];
    $before = $rule;
    if (edge_side($rule['source'] ?? null) !== $want['source']) {
        $rule['source'] = ['any' => ''];
    }
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    if (edge_side($destination) !== $want['destination'] || ($destination['port'] ?? '') !== $want['port']) {
        $rule['destination'] = edge_destination($want['destination'], $want['port']);
    }
    foreach (['interface', 'ipprotocol', 'protocol', 'target', 'descr'] as $field) {
        edge_set($rule, $field, $want[$field]);
    }
    if (($rule['local-port'] ?? $want['port']) !== $want['local_port'] || $index === null) {
        $rule['local-port'] = $want['local_port'];
    }
    unset($rule['disabled'], $rule['nordr']);
    if (($rule['associated-rule-id'] ?? '') !== 'pass') {
        $linked = edge_linked($filters, $rule);
        if ($linked === null) {
            $rule['associated-rule-id'] = 'nat_' . uniqid('', true);
        }
        edge_linked_write($filters, $linked, $rule, $want);
    }
    if ($rule != $before) {
        $rule['updated'] = edge_stamp();
    }
    $nat[$index ?? count($nat)] = $rule;
}

function edge_linked_write(array &$filters, ?int $index, array $redirect, array $want): void
{
    $want_pass = ['destination' => $want['target'], 'port' => $want['local_port'], 'descr' => substr("NAT {$want['descr']}", 0, 62)] + $want;
    if ($index === null) {
        $filters[] = edge_new_filter($want_pass) + ['associated-rule-id' => $redirect['associated-rule-id']];
    } else {
        edge_filter_write($filters[$index], $want_pass);
    }
}

function edge_pass_write(array &$filters, ?int $index, string $name, array $want): void
{
    if ($index === null) {
        $filters[] = edge_new_filter($want);
    } else {
        edge_filter_write($filters[$index], $want);
    }
}

function edge_new_filter(array $want): array
{
    $trackers = array_map('intval', array_column(edge_items('filter/rule'), 'tracker'));
    static $last = 0;
    $last = max(time(), $last + 1, ...array_map(fn($tracker) => $tracker + 1, array_filter($trackers, fn($tracker) => $tracker >= time())));
    return [
        'type' => 'pass',
        'interface' => $want['interface'],
        'ipprotocol' => $want['ipprotocol'],
        'protocol' => $want['protocol'],
        'source' => ['any' => ''],
        'destination' => ['address' => $want['destination'], 'port' => $want['port']],
        'descr' => $want['descr'],
        'tracker' => (string) $last,
        'created' => edge_stamp(),
    ];
}

function edge_filter_write(array &$rule, array $want): void
{
    $before = $rule;
    edge_set($rule, 'type', 'pass');
    foreach (['interface', 'ipprotocol', 'protocol', 'descr'] as $field) {
        edge_set($rule, $field, $want[$field]);
    }
    if (edge_side($rule['source'] ?? null) !== 'any') {
        $rule['source'] = ['any' => ''];
    }
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    if (edge_side($destination) !== $want['destination'] || ($destination['port'] ?? '') !== $want['port']) {
        $rule['destination'] = ['address' => $want['destination'], 'port' => $want['port']];
    }
    unset($rule['disabled']);
    if ($rule != $before) {
        $rule['updated'] = edge_stamp();
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
        'filter/rule' => 'rule', 'nat/rule' => 'redirect', 'nat/onetoone' => '1:1 mapping', 'nat/outbound/rule' => 'outbound mapping',
        'staticroutes/route' => 'static route', 'openvpn/openvpn-server' => 'OpenVPN server', 'openvpn/openvpn-client' => 'OpenVPN client',
        EDGE_FRONTENDS => 'HAProxy frontend', EDGE_POOLS => 'HAProxy pool', 'aliases/alias' => 'alias',
    ];
    foreach ($places as $path => $what) {
        foreach (edge_items($path) as $item) {
            if ($path === 'aliases/alias' && ($item['name'] ?? '') === $alias) {
                continue;
            }
            unset($item['descr'], $item['detail'], $item['name_of'], $item['associated-rule-id']);
            $label = (string) ($item['name'] ?? $item['tracker'] ?? edge_side($item['destination'] ?? null));
            unset($item['name']);
            $words = [];
            array_walk_recursive($item, function ($value) use (&$words) {
                $words = array_merge($words, preg_split('/[\s,|]+/', (string) $value, -1, PREG_SPLIT_NO_EMPTY));
            });
            if (in_array($alias, $words, true)) {
                $users[] = "{$what} {$label}";
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
    exec('/sbin/pfctl -P -sn 2>/dev/null', $nat, $failed);
    exec('/sbin/pfctl -P -sr 2>/dev/null', $filters, $failed_too);
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
    return ['changed' => $before != $after || edge_pf_problem($wanted) !== null, 'before' => $before, 'after' => $after];
}

function edge_rules_apply(array $wanted): array
{
    edge_lock();
    edge_step('precondition');
    edge_rules_unapplied();
    edge_fresh_read();
    $before = edge_rules_state($wanted);
    $previous = edge_journal_read('rules') ?? edge_rules_own($wanted);
    edge_rules_change($wanted);
    $after = edge_rules_state($wanted);
    $changed = $before != $after;
    if (!$changed && edge_pf_problem($wanted) === null) {
        edge_journal_clear('rules');
        return ['changed' => false, 'before' => $before, 'after' => $after];
    }
    if (edge_leads_to_haproxy($before, $wanted)) {
        edge_gate($wanted);
    }
    $undo = fn() => edge_rules_undo($previous, $wanted);
    edge_run()->undo = $undo;
    edge_journal_write('rules', $previous);
    if ($changed) {
        edge_commit('mailserver: redirects, pass rules and alias');
    }
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
