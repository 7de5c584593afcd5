<?php
/* HAProxy itself: test a configuration before it is written, apply it, verify what runs, roll back. */

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
        $text = edge_plain((string) $messages);
        $hint = str_contains($text, 'transparent') ? '; if this HAProxy has no transparent binds, set ipv6_transparent: false' : '';
        throw new EdgeRefusal('test', "HAProxy refuses the configuration: {$text}{$hint}");
    }
    edge_step('binds');
    $listeners = edge_listeners();
    $taken = [];
    $seen = [];
    $sections = edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg');
    foreach ($sections as $section => $lines) {
        foreach ($lines as $line) {
            if (preg_match('/^bind (\S*):(\d+)(?:-(\d+))?(?: name \S+)?(?: (.*))?$/', $line, $match)) {
                $address = $match[1] === '' ? '*' : $match[1];
                $seen[$section][] = edge_write_bind(edge_write_endpoint($address, $match[2]), $match[4] ?? '');
                foreach (range((int) $match[2], (int) (($match[3] ?? '') ?: $match[2])) as $port) {
                    $taken[$port][] = [edge_write_endpoint($address, (string) $port), $section];
                }
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
            [$endpoint, $options] = edge_bind($bind);
            [$address, $port] = edge_endpoint($endpoint);
            foreach ($taken[$port] as [$other, $section]) {
                $overlaps = $other === $endpoint || str_starts_with($other, '*:') || $other === "0.0.0.0:{$port}" || $other === "[::]:{$port}";
                if ($section !== "frontend {$name}" && $overlaps) {
                    throw new EdgeRefusal('binds', "frontend {$name} and {$section} would both listen on {$endpoint} ({$other})");
                }
            }
            edge_bindable($name, $address, $options);
            $program = edge_other_listener($listeners, $endpoint);
            if ($program !== null) {
                throw new EdgeRefusal('binds', "frontend {$name} cannot listen on {$endpoint}: {$program} does, and would get a part of the connections");
            }
        }
        edge_haproxy_servers($frontend['pool'], $wanted['pools'][$frontend['pool']], $sections["backend {$frontend['pool']}_ipvANY"] ?? []);
    }
}

/** Whether no frontend is left, ours or another: HAProxy refuses to start without a listener, and need not run. */
function edge_haproxy_is_idle(): bool
{
    $sections = array_keys(edge_cfg_sections(edge_path('varetc_path') . '/haproxy_test/haproxy.cfg'));
    return $sections !== [] && !preg_grep('/^(frontend|listen)\b/', $sections);
}

/** What HAProxy accepts and breaks mail: a server without its port, checks with a PROXY header, TLS around a PROXY header. */
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

/** Each pool that has a working server now must have one under its new ports too, for mail and for checks. */
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
            throw new EdgeRefusal('servers', "no server of {$name} would answer, and one does now; nothing was written");
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

/** `haproxy -c` does not bind: an address that is not this firewall's would show only at the start. A transparent bind may wait for its address. */
function edge_bindable(string $frontend, string $address, string $options): void
{
    $known = $options === 'transparent' ? edge_address_interface($address) !== null : edge_is_present($address);
    if (!$known) {
        throw new EdgeRefusal('binds', "frontend {$frontend} cannot listen on {$address}: no interface of this firewall has this address");
    }
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

/** HAProxy's answer on its control socket, or an empty text when it does not run. The package's reader would wait forever for one that hangs. */
function edge_haproxy_ask(string $command): string
{
    $socket = @stream_socket_client('unix://' . edge_path('tmp_path') . '/haproxy.socket', $number, $error, 5);
    if (!$socket) {
        return '';
    }
    stream_set_timeout($socket, EDGE_ANSWER_SECONDS);
    fwrite($socket, "{$command}\n");
    $answer = (string) stream_get_contents($socket);
    $hangs = stream_get_meta_data($socket)['timed_out'];
    fclose($socket);
    if ($hangs) {
        throw new EdgeRefusal(edge_run()->step, 'HAProxy runs and does not answer on its control socket: mail that arrives now waits in vain. '
            . 'Stop and start it (Status > Services > haproxy), then run this again');
    }
    return $answer;
}

/** @return array<string, array<string, array>> rows of `show stat` by proxy and server */
function edge_haproxy_stat(): array
{
    edge_haproxy_installed();
    $lines = array_filter(array_map('trim', explode("\n", edge_haproxy_ask('show stat'))));
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

/** A server counts once a check by this process has passed: HAProxy reports every server as UP before the first check. */
function edge_pool_is_up(array $stat, string $pool): bool
{
    foreach ($stat["{$pool}_ipvANY"] ?? [] as $name => $row) {
        if ($name !== 'BACKEND' && $row['status'] === 'UP' && $row['check_status'] === 'L4OK') {
            return true;
        }
    }
    return false;
}

/** What the running HAProxy lacks of what is wanted, or null. Who owns a listener counts, not whether something answers there. */
function edge_haproxy_problem(array $wanted): ?string
{
    $stat = edge_haproxy_stat();
    $listeners = edge_listeners();
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
            $endpoint = edge_bind($bind)[0];
            $program = edge_other_listener($listeners, $endpoint);
            if ($program !== null) {
                return "{$program} listens on {$endpoint} too, and gets a part of the connections of frontend {$name}";
            }
            if (!in_array('', $listeners[$endpoint] ?? [], true)) {
                return "HAProxy does not listen on {$endpoint} (frontend {$name})";
            }
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
    // Two checks of two seconds each and a margin. A pool that was down before does not count.
    $recovered = edge_wait(10, function () use ($healthy) {
        $stat = edge_haproxy_stat();
        return array_filter($healthy, fn($pool) => !edge_pool_is_up($stat, $pool)) === [];
    });
    if (!$recovered) {
        $stat = edge_haproxy_stat();
        $down = implode(', ', array_filter($healthy, fn($pool) => !edge_pool_is_up($stat, $pool)));
        throw new EdgeRefusal('verify', "no server of {$down} passes its check now, and one did before");
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

/** Put our items back as they were, whatever else changed meanwhile, and start HAProxy from that. Writes only what differs. */
function edge_haproxy_undo(array $previous, array $owned): void
{
    edge_fresh_read();
    $own = fn() => edge_haproxy_own($owned);
    $now = $own();
    foreach (['pools' => EDGE_POOLS, 'frontends' => EDGE_FRONTENDS] as $kind => $path) {
        $old = array_column($previous[$kind], null, 'name');
        config_set_path($path, edge_upsert(edge_items($path), $old, $owned[$kind], fn($item, $want) => $want));
    }
    if (edge_without_empty($own()) != edge_without_empty($now)) {
        edge_commit('mailserver: back to the HAProxy configuration before the failed change', $own);
    }
    try {
        edge_haproxy_ask('show info');
    } catch (EdgeRefusal) {
        haproxy_kill();  // the package would wait for its answer
    }
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

/** What no apply can mend: an address that HAProxy waits for. @return list<string> */
function edge_haproxy_warnings(array $wanted): array
{
    $binds = array_merge(...array_values(array_column($wanted['frontends'], 'binds')));
    $addresses = array_unique(array_map(fn($bind) => edge_endpoint(edge_bind($bind)[0])[0], $binds));
    $missing = array_values(array_filter($addresses, fn($address) => !edge_is_present($address)));
    return array_map(fn($address) => "{$address} is configured and not up: HAProxy gets no mail there until its interface is back", $missing);
}

/** @return array{changed: bool, before: array, after: array, warnings: list<string>} */
function edge_haproxy_plan(array $wanted): array
{
    edge_lock();  // it writes no configuration, but does write the file that an apply tests
    edge_haproxy_precondition();
    edge_fresh_read();
    $before = edge_haproxy_state($wanted['owned']);
    edge_haproxy_change($wanted);
    $after = edge_haproxy_state($wanted['owned']);
    edge_haproxy_test($wanted);
    $changed = $before !== $after;
    return [
        'changed' => $changed || !edge_haproxy_is_live($wanted), 'before' => $before, 'after' => $after,
        'warnings' => edge_haproxy_warnings($wanted),
    ];
}

/** @return array{changed: bool, before: array, after: array} */
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
    edge_package_unlocked();
    $undo = fn() => edge_haproxy_undo($previous, $wanted['owned']);
    edge_run()->undo = $undo;
    $description = $changed ? 'mailserver: HAProxy pools and frontends' : null;
    edge_journaled_commit('haproxy', $previous, fn() => edge_haproxy_own($wanted['owned']), $description);
    edge_or_roll_back(function () use ($wanted, $healthy) {
        edge_haproxy_reload();
        edge_haproxy_verify($wanted, $healthy);
    }, $undo);
    edge_journal_clear('haproxy');
    return ['changed' => true, 'before' => $before, 'after' => $after];
}
