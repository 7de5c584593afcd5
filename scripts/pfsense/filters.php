<?php
/* Filter rules: read and write ours, in front of what would block them, with the separators where they were. */

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

/** The rule at `$index` in the shape of the request; `blocked_by` is the rule in front of it that blocks what it passes. */
function edge_filter_read(array $filters, int $index): array
{
    $rule = $filters[$index];
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
        'blocked_by' => edge_blocked_by($filters, $index),
        'descr' => (string) ($rule['descr'] ?? ''),
    ];
}

/** Where the first rule that decides on all of what `$pass` lets in blocks it, of the floating rules or of its own interface's; or null. */
function edge_first_block(array $filters, array $pass, bool $floating): ?int
{
    $destination = is_array($pass['destination'] ?? null) ? $pass['destination'] : [];
    [$interface, $family, $port] = [(string) ($pass['interface'] ?? ''), (string) ($pass['ipprotocol'] ?? 'inet'), (string) ($destination['port'] ?? '')];
    foreach ($filters as $index => $rule) {
        if (edge_decides($rule, $interface, $family, edge_side($destination), $port, $floating)) {
            return ($rule['type'] ?? 'pass') === 'pass' ? null : $index;
        }
    }
    return null;
}

/** Whether a rule decides on TCP from anywhere to a destination and port; `$floating`: whether a floating rule is asked for. */
function edge_decides(array $rule, string $interface, string $family, string $destination, string $port, bool $floating): bool
{
    $interfaces = (string) ($rule['interface'] ?? '');
    $on = $floating
        ? isset($rule['quick']) && ($rule['direction'] ?? 'any') !== 'out' && ($interfaces === '' || in_array($interface, explode(',', $interfaces), true))
        : $interfaces === $interface;
    $to = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    return $on && isset($rule['floating']) === $floating && !isset($rule['disabled'])
        && in_array($rule['type'] ?? 'pass', ['pass', 'block', 'reject'], true)
        && in_array($rule['ipprotocol'] ?? 'inet', [$family, 'inet46'], true)
        && (($rule['protocol'] ?? '') === '' || str_contains($rule['protocol'], 'tcp')) && edge_side($rule['source'] ?? null) === 'any'
        && (($to['port'] ?? '') === '' || edge_covers((string) $to['port'], $port))
        && edge_covers_destination($to, $destination);
}

function edge_covers_destination(array $to, string $destination): bool
{
    $network = (string) ($to['network'] ?? '');
    $addresses = array_column(edge_items('aliases/alias'), 'address', 'name');
    $wanted = explode(' ', (string) ($addresses[$destination] ?? $destination));
    $blocked = (string) ($to['address'] ?? '');
    $covers = match (true) {
        isset($to['any']) => true,
        $network === '(self)' => edge_address_interface($wanted[0]) !== null,
        $network !== '' => $network === $destination || (str_ends_with($network, 'ip') && in_array(get_interface_ip(substr($network, 0, -2)), $wanted, true)),
        str_contains($blocked, '/') => ip_in_subnet($wanted[0], $blocked),
        default => array_diff($wanted, explode(' ', (string) ($addresses[$blocked] ?? $blocked))) === [],
    };
    return $covers !== isset($to['not']);
}

/** The description of the rule in front of ours that blocks it, or an empty text. */
function edge_blocked_by(array $filters, int $index): string
{
    $block = edge_first_block($filters, $filters[$index], true) ?? edge_first_block($filters, $filters[$index], false);
    return $block === null ? '' : ((string) ($filters[$block]['descr'] ?? '') ?: 'a rule without a description');
}

/** Write our pass rule, new or at `$index`, in front of the first rule of its interface that blocks it. `$extra` are fields of a new one. */
function edge_pass_write(array &$filters, ?int $index, array $want, array $extra = []): void
{
    $rule = $index === null ? edge_new_filter($want) + $extra : edge_filter_write($filters[$index], $want);
    $floating = edge_first_block($filters, $rule, true);
    if ($floating !== null) {
        throw new EdgeRefusal('conflict', "the floating rule `{$filters[$floating]['descr']}` blocks {$want['descr']} before any rule of its interface; "
            . 'give it an exception, or move it to the interface');
    }
    edge_filter_place($filters, $index, $rule);
}

/** Put a rule into its place: where it is, unless a rule in front of it blocks it; a new one last, or in front of what blocks it. */
function edge_filter_place(array &$filters, ?int $index, array $rule): void
{
    $block = edge_first_block($filters, $rule, false);
    if ($index !== null && $block === null) {
        $filters[$index] = $rule;
        return;
    }
    if ($index !== null) {
        edge_filter_remove($filters, $index);
    }
    if ($block === null) {
        $filters[] = $rule;
        return;
    }
    edge_separators($filters, $rule['interface'], $block, false);
    array_splice($filters, $block, 0, [$rule]);
}

function edge_filter_remove(array &$filters, int $index): void
{
    edge_separators($filters, (string) ($filters[$index]['interface'] ?? ''), $index, true);
    array_splice($filters, $index, 1);
}

/** Separators have a row among the rules of their interface: move those below a rule that is removed, or inserted before `$index`. */
function edge_separators(array $filters, string $interface, int $index, bool $removed): void
{
    $path = 'filter/separator/' . strtolower($interface);
    $separators = config_get_path($path, []);
    if (!is_array($separators) || !$separators) {
        return;
    }
    $before = array_filter(array_slice($filters, 0, $index), fn($rule) => !isset($rule['floating']) && ($rule['interface'] ?? '') === $interface);
    shift_separators($separators, count($before) - ($removed ? 0 : 1), $removed);
    config_set_path($path, $separators);
}

function edge_new_filter(array $want): array
{
    $trackers = array_map('intval', array_column(edge_items('filter/rule'), 'tracker'));
    static $last = 0;
    $last = max(time(), $last + 1, ...array_map(fn($tracker) => $tracker + 1, array_filter($trackers, fn($tracker) => $tracker >= time())));
    return [
        'type' => $want['type'] ?? 'pass',
        'interface' => $want['interface'],
        'ipprotocol' => $want['ipprotocol'],
        'protocol' => $want['protocol'],
        'source' => edge_source($want['source']),
        'destination' => ['address' => $want['destination'], 'port' => $want['port']],
        'descr' => $want['descr'],
        'tracker' => (string) $last,
        'created' => edge_stamp(),
    ];
}

function edge_source(string $source): array
{
    return $source === 'any' ? ['any' => ''] : ['address' => $source];
}

function edge_filter_write(array $rule, array $want): array
{
    $before = $rule;
    edge_set($rule, 'type', $want['type'] ?? 'pass');
    foreach (['interface', 'ipprotocol', 'protocol', 'descr'] as $field) {
        edge_set($rule, $field, $want[$field]);
    }
    if (edge_side($rule['source'] ?? null) !== $want['source']) {
        $rule['source'] = edge_source($want['source']);
    }
    $destination = is_array($rule['destination'] ?? null) ? $rule['destination'] : [];
    if (edge_side($destination) !== $want['destination'] || ($destination['port'] ?? '') !== $want['port']) {
        $rule['destination'] = ['address' => $want['destination'], 'port' => $want['port']];
    }
    unset($rule['disabled']);
    if ($rule != $before) {
        $rule['updated'] = edge_stamp();
    }
    return $rule;
}
