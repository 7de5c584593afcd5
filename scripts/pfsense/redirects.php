<?php
/* Single redirects: find, read and write them. */

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

/** The index of our redirect: by its description, or else the one that matches exactly this traffic. */
function edge_find_redirect(array $rules, string $name, ?array $want): ?int
{
    return edge_find($rules, $name, $want, 'redirects', function (array $rule, array $destination) use ($want) {
        return edge_takes($rule, $want)
            && ($rule['interface'] ?? '') === $want['interface'] && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol']
            && (string) ($destination['port'] ?? '') === $want['port']
            && edge_destinations_meet(edge_side($destination), $want['destination'], $want['interface']);
    });
}

function edge_find_pass(array $rules, string $name, ?array $want): ?int
{
    return edge_find($rules, $name, $want, 'rules', function (array $rule, array $destination) use ($want) {
        return edge_takes($rule, $want)
            && ($rule['type'] ?? 'pass') === 'pass' && ($rule['interface'] ?? '') === $want['interface'] && !isset($rule['associated-rule-id'])
            && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol'] && ($rule['protocol'] ?? '') === $want['protocol']
            && ($destination['address'] ?? '') === $want['destination'] && ($destination['port'] ?? '') === $want['port'];
    });
}

/** Whether a rule applies to all traffic. An exception, or a rule that an administrator keeps disabled, is not ours to take over. */
function edge_takes(array $rule, array $want): bool
{
    return !isset($rule['disabled']) && !isset($rule['nordr']) && edge_side($rule['source'] ?? null) === $want['source']
        && str_contains($rule['protocol'] ?? '', 'tcp');
}

function edge_find(array $rules, string $name, ?array $want, string $kind, callable $same): ?int
{
    $found = array_keys(array_filter($rules, fn($rule) => ($rule['descr'] ?? '') === $name));
    if (!$found && $want !== null) {
        $found = array_keys(array_filter($rules, fn($rule) => $same($rule, is_array($rule['destination'] ?? null) ? $rule['destination'] : [])));
    }
    if (count($found) > 1) {
        throw new EdgeRefusal('conflict', "two {$kind} could be `{$name}`; keep one, or give the other another port or destination");
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

/**
 * A redirect in the shape of the request; `pass_rule` is what its pass rule lets through, `blocked_by` the rule in front of that.
 * `$bans`: whether there are bans, which pf does not ask about what `rdr pass` redirects.
 */
function edge_redirect_read(array $rule, array $filters, bool $bans): array
{
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    $port = (string) ($destination['port'] ?? '');
    $local = (string) ($rule['local-port'] ?? '');
    $linked = edge_linked($filters, $rule);
    if (($rule['associated-rule-id'] ?? '') === 'pass') {
        $pass = edge_write_endpoint((string) $rule['target'], $local) . ($bans ? ' (past the bans)' : '');  // `rdr pass` lets through what it redirects
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
        'blocked_by' => $linked === null ? '' : edge_blocked_by($filters, $linked),
        'disabled' => isset($rule['disabled']) || isset($rule['nordr']) ? 'yes' : '',
        'descr' => (string) ($rule['descr'] ?? ''),
    ];
}

/** pf takes the first redirect that matches, so one that covers our port before ours would disable ours. */
function edge_redirect_conflict(array $nat, string $name, array $want, ?int $ours): void
{
    foreach ($nat as $index => $rule) {
        $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
        $meets = $index !== $ours && !isset($rule['disabled']) && ($rule['interface'] ?? '') === $want['interface']
            && ($rule['ipprotocol'] ?? 'inet') === $want['ipprotocol'] && str_contains($rule['protocol'] ?? '', 'tcp');
        if ($meets && edge_covers((string) ($destination['port'] ?? ''), $want['port'])
            && edge_destinations_meet(edge_side($destination), $want['destination'], $want['interface'])) {
            throw new EdgeRefusal('conflict', "the redirect `{$rule['descr']}` on {$want['interface']} covers port {$want['port']} of {$name} too");
        }
    }
}

function edge_redirect_write(array &$nat, array &$filters, ?int $index, string $name, array $want, bool $bans): void
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
    if ($bans && ($rule['associated-rule-id'] ?? '') === 'pass') {
        $rule['associated-rule-id'] = '';
    }
    if (($rule['associated-rule-id'] ?? '') !== 'pass') {
        $linked = edge_linked($filters, $rule);
        if ($linked === null) {
            $rule['associated-rule-id'] = 'nat_' . uniqid('', true);
        }
        $pass = ['destination' => $want['target'], 'port' => $want['local_port'], 'descr' => substr("NAT {$want['descr']}", 0, 62)] + $want;
        edge_pass_write($filters, $linked, $pass, ['associated-rule-id' => $rule['associated-rule-id']]);
    }
    if ($rule != $before) {
        $rule['updated'] = edge_stamp();
    }
    $nat[$index ?? count($nat)] = $rule;
}
