<?php
/* HAProxy's pools and frontends in the configuration: read them, change them in memory, refuse to remove what is in use. */

const EDGE_POOLS = 'installedpackages/haproxy/ha_pools/item';
const EDGE_FRONTENDS = 'installedpackages/haproxy/ha_backends/item';  // the package's own name for frontends

// Field of the agent's shapes => field of config.xml.
const EDGE_POOL_FIELDS = [
    'check_type' => 'check_type', 'checkinter' => 'checkinter', 'balance' => 'balance',
    'connection_timeout' => 'connection_timeout', 'server_timeout' => 'server_timeout', 'retries' => 'retries',
    'advanced' => 'advanced', 'advanced_backend' => 'advanced_backend', 'transparent_clientip' => 'transparent_clientip',
];
const EDGE_SERVER_FIELDS = ['address', 'port', 'status', 'weight', 'advanced'];
const EDGE_FRONTEND_FIELDS = [
    'descr' => 'descr', 'status' => 'status', 'type' => 'type', 'secondary' => 'secondary', 'pool' => 'backend_serverpool',
    'client_timeout' => 'client_timeout', 'advanced' => 'advanced', 'advanced_bind' => 'advanced_bind',
];
const EDGE_BASE64 = ['pool' => ['advanced', 'advanced_backend'], 'frontend' => ['advanced']];

function edge_haproxy_installed(): void
{
    if (!function_exists('haproxy_check_and_run')) {
        throw new EdgeRefusal('precondition', 'the HAProxy package is not installed: System > Package Manager > Available Packages > haproxy');
    }
}

function edge_haproxy_precondition(): void
{
    edge_step('precondition');
    edge_haproxy_installed();
    $global = config_get_path('installedpackages/haproxy', []);
    if (!is_array($global) || !isset($global['enable'])) {
        throw new EdgeRefusal('precondition', 'the HAProxy package is not enabled: Services > HAProxy > Settings > Enable HAProxy');
    }
    edge_carp_master();
    $foreign = edge_foreign_haproxy();
    if ($foreign !== null) {
        throw new EdgeRefusal('precondition', $foreign);
    }
    edge_haproxy_ask('show info');
}

/**
 * The backup of a pair gets its rules from the master: a change made here would be reported as done and move no mail. The package asks
 * for the field, not for its content: with an empty one it stops HAProxy.
 */
function edge_carp_master(): void
{
    $haproxy = config_get_path('installedpackages/haproxy', []);
    if (!is_array($haproxy) || !isset($haproxy['carpdev']) || !function_exists('haproxy_carpipismaster')) {
        return;
    }
    $address = (string) $haproxy['carpdev'];
    if ($address === '') {
        throw new EdgeRefusal('precondition', 'HAProxy is set to follow a CARP address and none is set, so it would be stopped: '
            . 'choose one, or none, in Services > HAProxy > Settings > Carp monitor');
    }
    if (!haproxy_carpipismaster($address)) {
        throw new EdgeRefusal('precondition', "this firewall is not the CARP master of {$address}: run it against the master");
    }
}

function edge_haproxy_unapplied(): void
{
    edge_step('unapplied');
    if (is_file($GLOBALS['d_haproxyconfdirty_path'])) {
        throw new EdgeRefusal('unapplied', 'Services > HAProxy has unapplied changes; apply or revert them first, then run this again');
    }
}

function edge_field_read(array $item, string $field, array $base64): string
{
    $value = is_array($item[$field] ?? '') ? '' : (string) ($item[$field] ?? '');
    if ($value !== '' && in_array($field, $base64, true)) {
        $plain = base64_decode($value, true);
        return $plain === false ? "(not base64) {$value}" : trim(str_replace("\r", '', $plain), "\n");
    }
    return in_array($field, ['secondary', 'transparent_clientip'], true) && $value !== 'yes' ? '' : $value;
}

function edge_pool_read(array $item): array
{
    $pool = [];
    foreach (EDGE_POOL_FIELDS as $ours => $theirs) {
        $pool[$ours] = edge_field_read($item, $theirs, EDGE_BASE64['pool']);
    }
    $pool['servers'] = [];
    foreach (edge_children($item, 'ha_servers') as $server) {
        $name = (string) ($server['name'] ?? '');
        while (isset($pool['servers'][$name])) {
            $name .= ' (again)';
        }
        $pool['servers'][$name] = array_combine(
            EDGE_SERVER_FIELDS,
            array_map(fn($field) => (string) ($server[$field] ?? ''), EDGE_SERVER_FIELDS)
        );
    }
    ksort($pool['servers'], SORT_NATURAL);
    return $pool;
}

function edge_frontend_read(array $item): array
{
    $frontend = [];
    foreach (EDGE_FRONTEND_FIELDS as $ours => $theirs) {
        $frontend[$ours] = edge_field_read($item, $theirs, EDGE_BASE64['frontend']);
    }
    $frontend['binds'] = [];
    foreach (edge_children($item, 'a_extaddr') as $bind) {
        $port = (string) ($bind['extaddr_port'] ?? '');
        if (($bind['extaddr'] ?? '') !== 'custom') {
            // The package takes this for the name of an interface; for any other text it silently listens everywhere.
            $frontend['binds'][] = '(interface ' . ($bind['extaddr'] ?? '') . "):{$port}";
            continue;
        }
        $options = array_filter([($bind['extaddr_ssl'] ?? '') === 'yes' ? 'SSL' : '', trim((string) ($bind['extaddr_advanced'] ?? ''))]);
        foreach (preg_split('/ +/', (string) ($bind['extaddr_custom'] ?? ''), -1, PREG_SPLIT_NO_EMPTY) as $address) {
            $frontend['binds'][] = edge_write_bind(edge_write_endpoint($address, $port), implode(', ', $options));
        }
    }
    return $frontend;
}

/** A bind as text: its endpoint, and its options in parentheses, such as `[2001:db8::1]:25 (transparent)`. */
function edge_write_bind(string $endpoint, string $options): string
{
    return $options === '' ? $endpoint : "{$endpoint} ({$options})";
}

/** @return array{string, string} endpoint and options of a bind */
function edge_bind(string $bind): array
{
    [$endpoint, $options] = explode(' ', $bind, 2) + [1 => ''];
    return [$endpoint, trim($options, '()')];
}

function edge_children(array $item, string $list): array
{
    $children = is_array($item[$list] ?? null) ? ($item[$list]['item'] ?? []) : [];
    return is_array($children) ? array_values(array_filter($children, 'is_array')) : [];
}

/** Our items as the configuration in memory holds them, in the shape of the request. */
function edge_haproxy_state(array $owned): array
{
    $state = ['pools' => [], 'frontends' => []];
    foreach (['pools' => EDGE_POOLS, 'frontends' => EDGE_FRONTENDS] as $kind => $path) {
        foreach (edge_items($path) as $item) {
            $name = (string) ($item['name'] ?? '');
            if (!in_array($name, $owned[$kind], true)) {
                continue;
            }
            if (isset($state[$kind][$name])) {
                throw new EdgeRefusal('conflict', "two HAProxy {$kind} are called {$name}; remove one by hand");
            }
            $state[$kind][$name] = $kind === 'pools' ? edge_pool_read($item) : edge_frontend_read($item);
        }
    }
    return $state;
}

/** Change our items in memory to what is wanted. Fields and items that are not ours stay as they are. */
function edge_haproxy_change(array $wanted): void
{
    edge_step('conflict');
    $pools = edge_upsert(edge_items(EDGE_POOLS), $wanted['pools'], $wanted['owned']['pools'], 'edge_pool_write');
    $frontends = edge_upsert(edge_items(EDGE_FRONTENDS), $wanted['frontends'], $wanted['owned']['frontends'], 'edge_frontend_write');
    edge_haproxy_unused($wanted, $pools, $frontends);
    config_set_path(EDGE_POOLS, $pools);
    config_set_path(EDGE_FRONTENDS, $frontends);
}

function edge_upsert(array $items, array $wanted, array $owned, callable $write): array
{
    $result = [];
    foreach ($items as $item) {
        $name = (string) ($item['name'] ?? '');
        if (isset($wanted[$name])) {
            $result[] = $write($item, $wanted[$name]);
            unset($wanted[$name]);
        } elseif (!in_array($name, $owned, true)) {
            $result[] = $item;
        }
    }
    foreach ($wanted as $name => $want) {
        $result[] = $write(['name' => (string) $name], $want);
    }
    return $result;
}

function edge_pool_write(array $item, array $want): array
{
    $have = edge_pool_read($item);
    foreach (EDGE_POOL_FIELDS as $ours => $theirs) {
        if ($have[$ours] !== $want[$ours]) {
            edge_set($item, $theirs, in_array($theirs, EDGE_BASE64['pool'], true) ? base64_encode($want[$ours]) : $want[$ours]);
        }
    }
    if ($have['servers'] !== $want['servers']) {
        $known = array_column(edge_children($item, 'ha_servers'), null, 'name');
        $servers = [];
        foreach ($want['servers'] as $name => $server) {
            $entry = $known[$name] ?? ['name' => (string) $name];
            foreach (EDGE_SERVER_FIELDS as $field) {
                edge_set($entry, $field, $server[$field]);
            }
            $servers[] = $entry;
        }
        $item['ha_servers'] = ['item' => $servers];
    }
    return $item;
}

function edge_frontend_write(array $item, array $want): array
{
    $have = edge_frontend_read($item);
    foreach (EDGE_FRONTEND_FIELDS as $ours => $theirs) {
        if ($have[$ours] !== $want[$ours]) {
            edge_set($item, $theirs, in_array($theirs, EDGE_BASE64['frontend'], true) ? base64_encode($want[$ours]) : $want[$ours]);
        }
    }
    if ($have['binds'] !== $want['binds']) {
        $binds = [];
        foreach ($want['binds'] as $bind) {
            [$endpoint, $options] = edge_bind($bind);
            [$address, $port] = edge_endpoint($endpoint);
            $entry = ['extaddr' => 'custom', 'extaddr_custom' => $address, 'extaddr_port' => $port];
            $binds[] = $options === '' ? $entry : $entry + ['extaddr_advanced' => $options];
        }
        $item['a_extaddr'] = ['item' => $binds];
    }
    return $item;
}

/** Refuse to remove what an item that is not ours, or a redirect, still uses. */
function edge_haproxy_unused(array $wanted, array $pools, array $frontends): void
{
    $gone_pools = array_diff($wanted['owned']['pools'], array_keys($wanted['pools']));
    $gone_frontends = array_diff($wanted['owned']['frontends'], array_keys($wanted['frontends']));
    foreach ($frontends as $item) {
        $name = $item['name'] ?? '';
        $uses = array_merge([$item['backend_serverpool'] ?? ''], array_column(edge_children($item, 'a_actionitems'), 'use_backendbackend'));
        foreach (array_intersect($gone_pools, $uses) as $pool) {
            throw new EdgeRefusal('conflict', "pool {$pool} cannot be removed: frontend {$name} uses it");
        }
        if (($item['secondary'] ?? '') === 'yes' && in_array($item['primary_frontend'] ?? '', $gone_frontends, true)) {
            throw new EdgeRefusal('conflict', "frontend {$item['primary_frontend']} cannot be removed: frontend {$name} shares it");
        }
    }
    foreach ($pools as $item) {
        foreach (array_intersect($gone_frontends, array_column(edge_children($item, 'ha_servers'), 'forwardto')) as $frontend) {
            throw new EdgeRefusal('conflict', "frontend {$frontend} cannot be removed: pool {$item['name']} forwards to it");
        }
    }
    $gone_binds = [];
    foreach (edge_haproxy_state($wanted['owned'])['frontends'] as $name => $frontend) {
        if (in_array($name, $gone_frontends, true)) {
            $gone_binds += array_fill_keys(array_map(fn($bind) => edge_bind($bind)[0], $frontend['binds']), $name);
        }
    }
    foreach (edge_items('nat/rule') as $rule) {
        $bind = edge_write_endpoint((string) ($rule['target'] ?? ''), (string) ($rule['local-port'] ?? ''));
        if (!isset($rule['disabled']) && isset($gone_binds[$bind])) {
            throw new EdgeRefusal('conflict', "frontend {$gone_binds[$bind]} cannot be removed: the redirect `{$rule['descr']}` points to it");
        }
    }
}
