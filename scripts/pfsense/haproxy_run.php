<?php
/* HAProxy itself: test a configuration before it is written, apply it, verify what runs, go back. */

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
    if (!haproxy_check_and_run($messages, false) && !edge_haproxy_is_idle()) {
        throw new EdgeRefusal('test', 'HAProxy refuses the configuration: ' . edge_plain((string) $messages));
    }
    edge_step('binds');
    $taken = [];
    $seen = [];
    $sections = edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg');
    foreach ($sections as $section => $lines) {
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
        edge_haproxy_servers($frontend['pool'], $wanted['pools'][$frontend['pool']], $sections["backend {$frontend['pool']}_ipvANY"] ?? []);
    }
}

/** Whether nobody is left to serve, ours or foreign: HAProxy refuses to start without a listener, and need not. */
function edge_haproxy_is_idle(): bool
{
    $sections = array_keys(edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg'));
    return $sections !== [] && !preg_grep('/^(frontend|listen)\b/', $sections);
}

/** What HAProxy accepts and mail does not: a server without its port, checks with a PROXY header, TLS around a PROXY header. */
function edge_haproxy_servers(string $name, array $pool, array $lines): void
{
    foreach ($pool['servers'] as $server => $want) {
        $start = "server {$server} {$want['address']}:{$want['port']} ";
        $found = array_values(array_filter($lines, fn($line) => str_starts_with("{$line} ", $start)));
        if (!$found || $want['port'] === '') {
            throw new EdgeRefusal('test', "server {$server} of pool {$name} would not be {$want['address']}:{$want['port']}");
        }
        foreach (array_intersect(explode(' ', $found[0]), ['ssl', 'check-ssl', 'check-send-proxy', 'send-proxy']) as $keyword) {
            throw new EdgeRefusal('test', "server {$server} of pool {$name} would get `{$keyword}`, which breaks mail; remove it by hand");
        }
    }
}

/** Of each pool that has a server now, one must answer under its new ports too, where mail goes and where checks go. */
function edge_haproxy_answering(array $wanted, array $healthy): void
{
    edge_step('servers');
    foreach ($healthy as $name) {
        $answers = false;
        foreach ($wanted['pools'][$name]['servers'] as $server) {
            $check = preg_match('/\bport (\d+)/', $server['advanced'], $match) ? $match[1] : $server['port'];
            $usable = $server['status'] === 'active' && $server['weight'] !== '0';
            $answers = $answers || ($usable && edge_accepts($server['address'], $server['port']) && edge_accepts($server['address'], $check));
        }
        if (!$answers) {
            throw new EdgeRefusal('servers', "no server of {$name} would answer any more, and one does now; nothing was written");
        }
    }
}

function edge_accepts(string $address, string $port): bool
{
    $socket = @stream_socket_client('tcp://' . edge_write_endpoint($address, $port), $number, $error, 2);
    if ($socket) {
        fclose($socket);
    }
    return (bool) $socket;
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
    if (edge_haproxy_is_idle()) {
        return edge_haproxy_stat() === [];
    }
    $ours = [];
    foreach ($wanted['owned']['frontends'] as $name) {
        $ours["frontend {$name}"] = 1;
    }
    foreach ($wanted['owned']['pools'] as $name) {
        $ours["backend {$name}_ipvANY"] = 1;
    }
    // Only ours: a foreign server given by name may be written with another address each time.
    $live = array_intersect_key(edge_cfg_sections(edge_path('varetc_path') . '/haproxy/haproxy.cfg'), $ours);
    $test = array_intersect_key(edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg'), $ours);
    return $live == $test && edge_haproxy_problem($wanted) === null;
}

/** @return array<string, array<string, array>> rows of `show stat` by proxy and server */
function edge_haproxy_stat(): array
{
    edge_haproxy_installed();
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
    if (edge_haproxy_is_idle()) {
        haproxy_kill(false);
        return;
    }
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

/** HAProxy's verdict, as the package wraps it in HTML, on one line. */
function edge_plain(string $html): string
{
    $text = html_entity_decode(strip_tags(str_replace('<br/>', "\n", $html)), ENT_QUOTES);
    if (preg_match_all('/\[ALERT\][ (\d):]*(.+)/', $text, $alerts)) {
        $text = implode("\n", $alerts[1]);  // the rest is versions and warnings
    }
    return substr(trim((string) preg_replace('/\s+/', ' ', $text)), 0, 2000);
}

/** @return array{changed: bool, before: array, after: array} */
function edge_haproxy_plan(array $wanted): array
{
    edge_lock(); // it writes no configuration, but the file that an apply has tested
    edge_haproxy_precondition();
    edge_fresh_read();
    $before = edge_haproxy_state($wanted['owned']);
    edge_haproxy_change($wanted);
    $after = edge_haproxy_state($wanted['owned']);
    edge_haproxy_test($wanted);
    $changed = $before !== $after;
    return ['changed' => $changed || !edge_haproxy_is_live($wanted), 'before' => $before, 'after' => $after];
}

function edge_haproxy_apply(array $wanted): array
{
    edge_lock();
    edge_haproxy_precondition();
    edge_haproxy_unapplied();
    edge_fresh_read();
    $before = edge_haproxy_state($wanted['owned']);
    $previous = edge_journal_read('haproxy', edge_haproxy_own($wanted['owned']));
    edge_haproxy_change($wanted);
    $after = edge_haproxy_state($wanted['owned']);
    edge_haproxy_test($wanted);
    $changed = $before !== $after;
    if (!$changed && edge_haproxy_is_live($wanted)) {
        edge_journal_clear('haproxy');
        return ['changed' => false, 'before' => $before, 'after' => $after];
    }
    $stat = edge_haproxy_stat();
    $healthy = array_values(array_filter(array_keys($wanted['pools']), fn($pool) => edge_pool_is_up($stat, $pool)));
    edge_haproxy_answering($wanted, $healthy);
    $undo = fn() => edge_haproxy_undo($previous, $wanted['owned']);
    edge_run()->undo = $undo;
    $description = $changed ? 'mailserver: HAProxy pools and frontends' : null;
    edge_journaled_commit('haproxy', $previous, edge_haproxy_own($wanted['owned']), $description);
    edge_or_roll_back(function () use ($wanted, $healthy) {
        edge_haproxy_reload();
        edge_haproxy_verify($wanted, $healthy);
    }, $undo);
    edge_journal_clear('haproxy');
    return ['changed' => true, 'before' => $before, 'after' => $after];
}
