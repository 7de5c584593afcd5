<?php
/* HAProxy's pools and frontends: read, change in memory, test, commit, apply, verify, go back. */

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

function edge_haproxy_precondition(): void
{
    edge_step('precondition');
    if (!function_exists('haproxy_check_and_run')) {
        throw new EdgeRefusal('precondition', 'the HAProxy package is not installed: System > Package Manager > Available Packages > haproxy');
    }
    $global = config_get_path('installedpackages/haproxy', []);
    if (!is_array($global) || !isset($global['enable'])) {
        throw new EdgeRefusal('precondition', 'the HAProxy package is not enabled: Services > HAProxy > Settings > Enable HAProxy');
    }
    if (($global['carpdev'] ?? '') !== '' && !haproxy_carpipismaster($global['carpdev'])) {
        throw new EdgeRefusal('precondition', "this firewall is not the CARP master of {$global['carpdev']}: run it against the master");
    }
}

function edge_haproxy_unapplied(): void
{
    edge_step('unapplied');
    if (is_file($GLOBALS['d_haproxyconfdirty_path'])) {
        throw new EdgeRefusal('unapplied', 'Services > HAProxy has changes that nobody applied; apply or revert them first, then run this again');
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
        foreach (preg_split('/ +/', (string) ($bind['extaddr_custom'] ?? ''), -1, PREG_SPLIT_NO_EMPTY) as $address) {
            $frontend['binds'][] = edge_write_endpoint($address, $port);
        }
    }
    return $frontend;
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

/** Bring our items in memory to what is wanted. Fields that are not ours, and items that are not ours, stay as they are. */
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
            [$address, $port] = edge_endpoint($bind);
            $binds[] = ['extaddr' => 'custom', 'extaddr_custom' => $address, 'extaddr_port' => $port];
        }
        $item['a_extaddr'] = ['item' => $binds];
    }
    return $item;
}

/** Refuse to remove what somebody else's item, or a redirect, still needs. */
function edge_haproxy_unused(array $wanted, array $pools, array $frontends): void
{
    $gone_pools = array_diff($wanted['owned']['pools'], array_keys($wanted['pools']));
    $gone_frontends = array_diff($wanted['owned']['frontends'], array_keys($wanted['frontends']));
    foreach ($frontends as $item) {
        $name = $item['name'] ?? '';
        $uses = array_merge([$item['backend_serverpool'] ?? ''], array_column(edge_children($item, 'a_actionitems'), 'use_backendbackend'));
        foreach (array_intersect($gone_pools, $uses) as $pool) {
            throw new EdgeRefusal('conflict', "pool {$pool} cannot go: frontend {$name} uses it");
        }
        if (($item['secondary'] ?? '') === 'yes' && in_array($item['primary_frontend'] ?? '', $gone_frontends, true)) {
            throw new EdgeRefusal('conflict', "frontend {$item['primary_frontend']} cannot go: frontend {$name} shares it");
        }
    }
    foreach ($pools as $item) {
        foreach (array_intersect($gone_frontends, array_column(edge_children($item, 'ha_servers'), 'forwardto')) as $frontend) {
            throw new EdgeRefusal('conflict', "frontend {$frontend} cannot go: pool {$item['name']} forwards to it");
        }
    }
    $gone_binds = [];
    foreach (edge_haproxy_state($wanted['owned'])['frontends'] as $name => $frontend) {
        if (in_array($name, $gone_frontends, true)) {
            $gone_binds += array_fill_keys($frontend['binds'], $name);
        }
    }
    foreach (edge_items('nat/rule') as $rule) {
        $bind = edge_write_endpoint((string) ($rule['target'] ?? ''), (string) ($rule['local-port'] ?? ''));
        if (!isset($rule['disabled']) && isset($gone_binds[$bind])) {
            throw new EdgeRefusal('conflict', "frontend {$gone_binds[$bind]} cannot go: the redirect {$rule['descr']} leads to it");
        }
    }
}

/** The test configuration that the package generated, as sections of lines without indentation and double blanks. */
function edge_cfg_sections(string $file): array
{
    $sections = [];
    $section = '';
    foreach (is_file($file) ? file($file) : [] as $line) {
        $line = trim((string) preg_replace('/\s+/', ' ', $line));
        if ($line === '' || $line[0] === '#') {
            continue;
        }
        if (preg_match('/^(global|defaults|frontend|backend|listen|mailers|resolvers|peers|userlist)\b/', $line)) {
            $section = $line;
        }
        $sections[$section][] = $line;
    }
    return $sections;
}

/** Let the package generate and HAProxy judge what is in memory, before it is written anywhere. */
function edge_haproxy_test(array $wanted): void
{
    edge_step('test');
    $messages = '';
    if (!haproxy_check_and_run($messages, false)) {
        throw new EdgeRefusal('test', 'HAProxy refuses the configuration: ' . edge_plain((string) $messages));
    }
    edge_step('binds');
    $taken = [];
    $seen = [];
    foreach (edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg') as $section => $lines) {
        foreach ($lines as $line) {
            if (preg_match('/^bind (\S*):(\d+) /', "{$line} ", $match)) {
                $bind = edge_write_endpoint($match[1] === '' ? '*' : $match[1], $match[2]);
                $seen[$section][] = $bind;
                $taken[$match[2]][] = [$bind, $section];
            }
        }
    }
    foreach ($wanted['frontends'] as $name => $frontend) {
        $binds = $seen["frontend {$name}"] ?? [];
        if ($binds !== $frontend['binds']) {
            $found = implode(', ', $binds) ?: 'nowhere';
            throw new EdgeRefusal('binds', "frontend {$name} would listen on {$found}, not on " . implode(', ', $frontend['binds']));
        }
        foreach ($frontend['binds'] as $bind) {
            [$address, $port] = edge_endpoint($bind);
            foreach ($taken[$port] as [$other, $section]) {
                $overlaps = $other === $bind || str_starts_with($other, '*:') || $other === "0.0.0.0:{$port}" || $other === "[::]:{$port}";
                if ($section !== "frontend {$name}" && $overlaps) {
                    throw new EdgeRefusal('binds', "frontend {$name} and {$section} would both listen on {$bind} ({$other})");
                }
            }
            edge_bindable($name, $address);
        }
    }
}

/** `haproxy -c` does not bind, so an address that is not on this firewall would be found only when it is too late. */
function edge_bindable(string $frontend, string $address): void
{
    $socket = @stream_socket_server('tcp://' . edge_write_endpoint($address, '0'), $number, $error);
    if (!$socket) {
        throw new EdgeRefusal('binds', "frontend {$frontend} cannot listen on {$address}: {$error}");
    }
    fclose($socket);
}

/** Whether the running HAProxy was started from what the configuration generates now. */
function edge_haproxy_is_live(array $wanted): bool
{
    $live = edge_path('varetc_path') . '/haproxy/haproxy.cfg';
    $test = edge_path('varetc_path') . '/haproxy_test/haproxy.cfg';
    $plain = fn($sections) => str_replace(dirname($test), dirname($live), json_encode($sections));
    return $plain(edge_cfg_sections($live)) === $plain(edge_cfg_sections($test)) && edge_haproxy_problem($wanted) === null;
}

/** @return array<string, array<string, array>> rows of `show stat` by proxy and server */
function edge_haproxy_stat(): array
{
    $lines = array_filter(array_map('trim', haproxy_socket_command('show stat') ?: []));
    $head = str_getcsv(ltrim((string) array_shift($lines), '# '), ',', '"', '\\');
    $rows = [];
    foreach ($lines as $line) {
        $cells = str_getcsv($line, ',', '"', '\\');
        if (count($cells) === count($head)) {
            $row = array_combine($head, $cells);
            $rows[$row['pxname']][$row['svname']] = $row;
        }
    }
    return $rows;
}

/** A server counts once a check of this very process has passed: HAProxy calls every server UP before the first one. */
function edge_pool_is_up(array $stat, string $pool): bool
{
    foreach ($stat["{$pool}_ipvANY"] ?? [] as $name => $row) {
        if ($name !== 'BACKEND' && $row['status'] === 'UP' && $row['check_status'] === 'L4OK') {
            return true;
        }
    }
    return false;
}

/** What the running HAProxy lacks of what is wanted, or null. */
function edge_haproxy_problem(array $wanted): ?string
{
    $stat = edge_haproxy_stat();
    foreach ($wanted['frontends'] as $name => $frontend) {
        if (!isset($stat[$name]['FRONTEND'])) {
            return "HAProxy does not run frontend {$name}";
        }
        foreach (array_keys($wanted['pools'][$frontend['pool']]['servers']) as $server) {
            if (!isset($stat["{$frontend['pool']}_ipvANY"][$server])) {
                return "HAProxy does not know server {$server} of pool {$frontend['pool']}";
            }
        }
        foreach ($frontend['binds'] as $bind) {
            $socket = @stream_socket_client("tcp://{$bind}", $number, $error, 1.0);
            if (!$socket) {
                return "nothing answers on {$bind} (frontend {$name}): {$error}";
            }
            fclose($socket);
        }
    }
    return null;
}

function edge_haproxy_reload(): void
{
    edge_step('apply');
    $messages = '';
    if (!haproxy_check_and_run($messages, true)) {
        throw new EdgeRefusal('apply', 'HAProxy did not start with the new configuration: ' . edge_plain((string) $messages));
    }
}

function edge_haproxy_verify(array $wanted, array $healthy): void
{
    edge_step('verify');
    $problem = null;
    $settled = edge_wait(10, function () use ($wanted, &$problem) {
        return ($problem = edge_haproxy_problem($wanted)) === null;
    });
    if (!$settled) {
        throw new EdgeRefusal('verify', (string) $problem);
    }
    // Two checks of two seconds each and a margin. A pool that was down before is not this change's fault.
    $recovered = edge_wait(10, function () use ($healthy) {
        $stat = edge_haproxy_stat();
        return array_filter($healthy, fn($pool) => !edge_pool_is_up($stat, $pool)) === [];
    });
    if (!$recovered) {
        $stat = edge_haproxy_stat();
        $down = implode(', ', array_filter($healthy, fn($pool) => !edge_pool_is_up($stat, $pool)));
        throw new EdgeRefusal('verify', "no server of {$down} passes its check any more, and one did before");
    }
}

function edge_haproxy_own(array $owned): array
{
    $own = [];
    foreach (['pools' => EDGE_POOLS, 'frontends' => EDGE_FRONTENDS] as $kind => $path) {
        $own[$kind] = array_values(array_filter(edge_items($path), fn($item) => in_array($item['name'] ?? '', $owned[$kind], true)));
    }
    return $own;
}

/** Put our items back as they were, whatever else changed meanwhile, and start HAProxy from that. */
function edge_haproxy_undo(array $previous, array $owned): void
{
    edge_fresh_read();
    foreach (['pools' => EDGE_POOLS, 'frontends' => EDGE_FRONTENDS] as $kind => $path) {
        $old = array_column($previous[$kind], null, 'name');
        config_set_path($path, edge_upsert(edge_items($path), $old, $owned[$kind], fn($item, $want) => $want));
    }
    edge_commit('mailserver: back to the HAProxy configuration before the failed change');
    $messages = '';
    if (!haproxy_check_and_run($messages, true)) {
        throw new EdgeRefusal('rollback', 'HAProxy does not start with the earlier configuration either: ' . edge_plain((string) $messages));
    }
    edge_journal_clear('haproxy');
}

function edge_plain(string $html): string
{
    $text = html_entity_decode(strip_tags(str_replace('<br/>', "\n", $html)), ENT_QUOTES);
    return substr(trim((string) preg_replace('/\s+/', ' ', $text)), 0, 2000);
}

/** @return array{changed: bool, before: array, after: array} */
function edge_haproxy_plan(array $wanted): array
{
    edge_haproxy_precondition();
    edge_fresh_read();
    $before = edge_haproxy_state($wanted['owned']);
    edge_haproxy_change($wanted);
    $after = edge_haproxy_state($wanted['owned']);
    edge_haproxy_test($wanted);
    $changed = $before != $after;
    return ['changed' => $changed || !edge_haproxy_is_live($wanted), 'before' => $before, 'after' => $after];
}

function edge_haproxy_apply(array $wanted): array
{
    edge_lock();
    edge_haproxy_precondition();
    edge_haproxy_unapplied();
    edge_fresh_read();
    $before = edge_haproxy_state($wanted['owned']);
    $previous = edge_journal_read('haproxy') ?? edge_haproxy_own($wanted['owned']);
    edge_haproxy_change($wanted);
    $after = edge_haproxy_state($wanted['owned']);
    edge_haproxy_test($wanted);
    $changed = $before != $after;
    if (!$changed && edge_haproxy_is_live($wanted)) {
        edge_journal_clear('haproxy');
        return ['changed' => false, 'before' => $before, 'after' => $after];
    }
    $stat = edge_haproxy_stat();
    $healthy = array_values(array_filter(array_keys($wanted['pools']), fn($pool) => edge_pool_is_up($stat, $pool)));
    $undo = fn() => edge_haproxy_undo($previous, $wanted['owned']);
    edge_run()->undo = $undo;
    edge_journal_write('haproxy', $previous);
    if ($changed) {
        edge_commit('mailserver: HAProxy pools and frontends');
    }
    edge_or_roll_back(function () use ($wanted, $healthy) {
        edge_haproxy_reload();
        edge_haproxy_verify($wanted, $healthy);
    }, $undo);
    edge_journal_clear('haproxy');
    return ['changed' => true, 'before' => $before, 'after' => $after];
}
