<?php
/* pf's own rules: the only verdict on a reload, which is asynchronous and reports nothing. */

/**
 * One rule of `pfctl -P -sr`, or null for what cannot concern new inbound TCP from any port.
 * @return ?array{pass: bool, quick: bool, on: string, family: string, from: string, to: string, port: string, label: string}
 */
function edge_pf_rule(string $line): ?array
{
    [$head, $labels] = explode(' label ', "{$line} label ", 2);
    $side = '(!? ?\S+(?: - \S+)?)(?: port ([=!<>]+ \S+|\S+(?: [<>]+ \S+)?))?';
    if (!preg_match("/^(pass|block)\b(.*?) (?:all|from {$side} to {$side})(?: |$)/", $head, $match)) {
        return null;
    }
    [, $action, $front, $from, $from_port, $to, $port] = $match + array_fill(0, 7, '');
    preg_match('/ on ((?:! )?\S+)/', $front, $on);
    preg_match('/ (inet6?)\b/', $front, $family);
    preg_match('/ proto (\S+)/', $front, $protocol);
    if (preg_match('/ out\b/', $front) || ($protocol[1] ?? 'tcp') !== 'tcp' || $from_port !== '' || str_contains($head, ' tagged ')) {
        return null;
    }
    preg_match('/"(?:USER_RULE: |descr=)([^"]*)"/', $labels, $label) || preg_match('/"([^"]*)"/', $labels, $label);
    return [
        'pass' => $action === 'pass', 'quick' => str_contains($front, ' quick'), 'on' => $on[1] ?? '', 'family' => $family[1] ?? '',
        'from' => $from ?: 'any', 'to' => $to ?: 'any', 'port' => $port, 'label' => $label[1] ?? '',
    ];
}

/** Why pf does not let new TCP from anywhere through to any of `$targets`, or null. `$targets` are addresses, and `<table>` for an alias. */
function edge_pf_verdict(array $rules, string $interface, string $family, array $targets, string $port): ?string
{
    $last = edge_pf_decides($rules, $interface, $family, $targets, $port, ['any']);
    if ($last !== null && $last['pass']) {
        return null;
    }
    return $last !== null && $last['quick'] ? "the rule `{$last['label']}` blocks it first" : 'no rule passes it';
}

/** The rule that decides on new TCP from `$sources`, as rules name them, to any of `$targets`: the first quick one, else the last; or null. */
function edge_pf_decides(array $rules, string $interface, string $family, array $targets, string $port, array $sources): ?array
{
    $last = null;
    foreach ($rules as $rule) {
        $covers = edge_pf_on($rule['on'], $interface) && in_array($rule['family'], ['', $family], true) && edge_pf_to_port($rule['port'], $port)
            && in_array($rule['from'], $sources, true) && edge_pf_to($rule['to'], $targets);
        if ($covers) {
            $last = $rule;
            if ($rule['quick']) {
                break;
            }
        }
    }
    return $last;
}

function edge_pf_on(string $on, string $interface): bool
{
    if (str_starts_with($on, '! ')) {
        return !edge_pf_on(substr($on, 2), $interface);
    }
    $members = [];
    foreach (edge_items('ifgroups/ifgroupentry') as $group) {
        $members[(string) ($group['ifname'] ?? '')] = array_map('get_real_interface', explode(' ', (string) ($group['members'] ?? '')));
    }
    return in_array($on, ['', $interface], true) || in_array($interface, $members[$on] ?? [], true);
}

/** `= 25`, `25:30`, or a service's name, which older pfctl prints in spite of -P. */
function edge_pf_to_port(string $listed, string $port): bool
{
    [$low, $high] = explode(':', str_replace('= ', '', $listed)) + [1 => ''];
    return $listed === '' || $low === $port || $low === getservbyport((int) $port, 'tcp') || ($high !== '' && (int) $low <= (int) $port && (int) $port <= (int) $high);
}

function edge_pf_to(string $to, array $targets): bool
{
    if (str_starts_with($to, '! ')) {
        return !edge_pf_to(substr($to, 2), $targets);
    }
    if ($to === 'any' || in_array($to, $targets, true)) {
        return true;
    }
    $addresses = array_filter($targets, 'is_ipaddr');
    return $addresses !== [] && array_filter($addresses, fn($address) => !edge_pf_has($to, $address)) === [];
}

/** Whether an address is in what a rule names: a network, a table, (self) or an interface. */
function edge_pf_has(string $to, string $address): bool
{
    if (preg_match('/^<([^>:]+)/', $to, $table)) {
        exec('pfctl -q -t ' . escapeshellarg($table[1]) . ' -T test ' . escapeshellarg($address) . ' 2>/dev/null', $output, $failed);
        return !$failed;
    }
    $interface = str_starts_with($to, '(') ? edge_address_interface($address) : null;
    if ($to === '(self)' || $interface === null) {
        return $interface !== null || (str_contains($to, '/') && ip_in_subnet($address, $to));
    }
    return explode(':', trim($to, '()'))[0] === get_real_interface($interface);
}

/** What pf itself lacks of what is wanted, or null. */
function edge_pf_problem(array $wanted): ?string
{
    [$nat, $lines] = [edge_pfctl('-sn'), edge_pfctl('-sr')];
    if ($nat === null || $lines === null) {
        return 'pfctl does not answer';
    }
    $rules = array_values(array_filter(array_map('edge_pf_rule', $lines)));
    foreach ($wanted['redirects'] as $name => $want) {
        $interface = (string) get_real_interface($want['interface']);
        $targets = edge_pf_targets($want['target']);
        $redirect = edge_pf_redirect($nat, $interface, $want['port'], $want['local_port'], $targets);
        if ($redirect === null) {
            return "pf has no redirect of port {$want['port']} to {$want['target']} ({$name})";
        }
        $verdict = str_starts_with($redirect, 'rdr pass ') ? null : edge_pf_verdict($rules, $interface, 'inet', $targets, $want['local_port']);
        if ($verdict !== null) {
            return "pf does not let port {$want['port']} through to {$want['target']} ({$name}): {$verdict}";
        }
    }
    foreach ($wanted['passes'] as $name => $want) {
        $verdict = edge_pf_verdict($rules, (string) get_real_interface($want['interface']), $want['ipprotocol'], [$want['destination']], $want['port']);
        if ($verdict !== null) {
            return "pf does not let port {$want['port']} through to {$want['destination']} ({$name}): {$verdict}";
        }
    }
    return edge_bans_problem($wanted, $rules);
}

/** The rules of ours that pf still has though they should be gone, or null. `$before` is the state before the change. */
function edge_pf_leftover(array $before, array $wanted): ?string
{
    $nat = edge_pfctl('-sn') ?? [];
    $labels = array_column(array_filter(array_map('edge_pf_rule', edge_pfctl('-sr') ?? [])), 'label');
    foreach (array_diff_key($before['redirects'], $wanted['redirects']) as $name => $gone) {
        $interface = (string) get_real_interface($gone['interface']);
        if (edge_pf_redirect($nat, $interface, $gone['port'], $gone['local_port'], edge_pf_targets($gone['target'])) !== null || in_array("NAT {$name}", $labels, true)) {
            return "pf still redirects port {$gone['port']} to {$gone['target']} ({$name})";
        }
    }
    $gone = array_diff_key($before['passes'] + $before['bans'], $wanted['passes'] + $wanted['bans']);
    foreach (array_intersect(array_keys($gone), $labels) as $name) {
        return "pf still has the rule {$name}";
    }
    return null;
}

/** @return ?list<string> */
function edge_pfctl(string $listing): ?array
{
    exec("pfctl -P {$listing} 2>/dev/null", $lines, $failed);
    return $failed ? null : $lines;
}

/** pf's redirect of a port to one of `$targets`, as text, or null. */
function edge_pf_redirect(array $nat, string $interface, string $port, string $local_port, array $targets): ?string
{
    $to = implode('|', array_map(fn($target) => preg_quote($target, '/'), $targets));
    $service = getservbyport((int) $port, 'tcp');
    $ports = $service === false ? $port : "(?:{$port}|" . preg_quote($service, '/') . ')';
    $on = preg_quote($interface, '/');
    $found = preg_grep("/^rdr (?:pass )?on {$on} .*\bproto tcp .*port = {$ports}\b.* -> (?:{$to})(?: port {$local_port})?(?: |$)/", $nat);
    return array_values($found)[0] ?? null;
}

/** @return list<string> the addresses of a redirect's target, and pf's table where it is an alias */
function edge_pf_targets(string $target): array
{
    $addresses = array_column(edge_items('aliases/alias'), 'address', 'name')[$target] ?? null;
    return $addresses === null ? [$target] : ["<{$target}>", ...preg_split('/\s+/', (string) $addresses, -1, PREG_SPLIT_NO_EMPTY)];
}

/** Whether the firewall says that it is still loading rules; `$since` is when it was told to. */
function edge_filter_is_busy(int $since): bool
{
    $file = edge_path('varrun_path') . '/filter_reload_status';
    clearstatcache();
    $lines = is_file($file) ? file($file, FILE_IGNORE_NEW_LINES) : [];
    return $lines !== [] && filemtime($file) >= $since && trim(end($lines)) !== 'Done';
}

/** Reload the filter and wait for pf to hold what is wanted, as long as the firewall is at work on it. */
function edge_filter_reload(callable $problem): void
{
    edge_step('apply');
    $begun = time();
    filter_configure();
    edge_step('verify');
    $text = null;
    $idle_since = microtime(true);
    $limit = $begun + EDGE_RELOAD_SECONDS;
    while (($text = $problem()) !== null) {
        if (edge_filter_is_busy($begun)) {
            $idle_since = microtime(true);
        }
        if (microtime(true) - $idle_since >= EDGE_IDLE_SECONDS || microtime(true) >= $limit) {
            $waited = time() - $begun;
            throw new EdgeRefusal('verify', "{$text}, {$waited} seconds after the filter was told to reload");
        }
        usleep(100000);
    }
}
