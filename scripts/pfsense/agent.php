<?php
/*
 * The entry. $request is base64 of JSON, set by the client in front of this program:
 *   {"verb": "read|plan|apply|delete|health", "kind": "haproxy|rules", "wanted": {…}}
 */

function edge_main(string $request): never
{
    try {
        $request = json_decode((string) base64_decode($request, true), true);
        if (!is_array($request) || !isset($request['wanted']['owned'])) {
            throw new EdgeRefusal('request', 'the agent does not understand the request');
        }
        $request['wanted'] += ['bans' => [], 'cron' => []];  // a state that was written before there were bans
        $request['wanted']['owned'] += ['bans' => [], 'cron' => []];
        edge_sort($request['wanted']);
        $_SESSION['Username'] = 'pulumi';  // the name in the configuration's history
        edge_answer(['ok' => true, 'step' => 'done'] + edge_verb($request), 0);
    } catch (EdgeRefusal $refusal) {
        edge_refuse($refusal);
    }
}

function edge_verb(array $request): array
{
    $wanted = $request['wanted'];
    $haproxy = ($request['kind'] ?? '') === 'haproxy';
    switch ($request['verb'] ?? '') {
        case 'read':
            edge_step('precondition');
            edge_fresh_read();
            $state = $haproxy ? edge_haproxy_state($wanted['owned']) : edge_rules_state($wanted);
            return ['state' => $state, 'problem' => edge_problem($haproxy, $wanted)];
        case 'plan':
            return $haproxy ? edge_haproxy_plan($wanted) : edge_rules_plan($wanted);
        case 'apply':
            return $haproxy ? edge_haproxy_apply($wanted) : edge_rules_apply($wanted);
        case 'delete':
            $none = array_fill_keys(['pools', 'frontends', 'redirects', 'passes', 'bans', 'cron', 'aliases', 'absent_aliases', 'gates', 'legacy'], []);
            // An alias of ours is removed with the rules, unless something else uses it by now.
            $aliases = array_values(array_filter(array_keys($wanted['aliases'] ?? []), fn($alias) => edge_only_ours($alias, $wanted)));
            $wanted = ['absent_aliases' => $aliases, 'owned' => $wanted['owned']] + $none;
            return $haproxy ? edge_haproxy_apply($wanted) : edge_rules_apply($wanted);
        case 'health':
            edge_step('precondition');
            $servers = $haproxy ? edge_health($wanted) : [];
            $problem = edge_problem($haproxy, $wanted);
            $warnings = $haproxy ? edge_haproxy_warnings($wanted) : edge_rules_warnings($wanted);
            return ['servers' => $servers, 'bans' => $haproxy ? null : edge_bans_health($wanted), 'warnings' => [...($problem === null ? [] : [$problem]), ...$warnings]];
    }
    throw new EdgeRefusal('request', 'the agent does not know the verb of the request');
}

/** What is configured and not in force, or about to fail: a run that was cut off, a stopped service, a second HAProxy. */
function edge_problem(bool $haproxy, array $wanted): ?string
{
    return match (true) {
        !$haproxy => edge_pf_problem($wanted),
        function_exists('haproxy_check_and_run') => edge_foreign_haproxy() ?? edge_haproxy_problem($wanted),
        default => 'the HAProxy package is not installed',
    };
}

/** Maps arrive in any order; lists keep theirs. */
function edge_sort(array &$value): void
{
    foreach ($value as &$part) {
        if (is_array($part)) {
            edge_sort($part);
        }
    }
    if (!array_is_list($value)) {
        ksort($value, SORT_NATURAL);
    }
}

/** Whether only our own rules use an alias. */
function edge_only_ours(string $alias, array $wanted): bool
{
    $names = array_merge($wanted['owned']['redirects'], $wanted['owned']['bans']);
    foreach (['nat/rule', 'filter/rule'] as $path) {
        foreach (edge_items($path) as $rule) {
            $words = [edge_side($rule['source'] ?? null), edge_side($rule['destination'] ?? null), $rule['destination']['port'] ?? '', $rule['target'] ?? ''];
            if (!in_array(preg_replace('/^NAT /', '', (string) ($rule['descr'] ?? '')), $names, true) && in_array($alias, $words, true)) {
                return false;
            }
        }
    }
    return true;
}

/** @return array<string, array<string, string>> state of each server of our pools: `UP L4OK`, `DOWN L4CON`, … */
function edge_health(array $wanted): array
{
    $servers = [];
    foreach (array_intersect_key(edge_haproxy_stat(), array_flip(array_map(fn($pool) => "{$pool}_ipvANY", $wanted['owned']['pools']))) as $pool => $rows) {
        foreach (array_diff_key($rows, ['BACKEND' => 1]) as $name => $row) {
            $servers[$pool][$name] = trim("{$row['status']} {$row['check_status']}");
        }
    }
    return $servers;
}

ob_start();  // the firewall's own code prints too; only the answer may leave
register_shutdown_function('edge_shutdown');
ignore_user_abort(true);  // a lost connection must not stop a change half-way
set_time_limit(0);
putenv('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
require_once('globals.inc');
require_once('config.inc');
require_once('functions.inc');
require_once('filter.inc');
if (stream_resolve_include_path('haproxy/haproxy.inc')) {
    require_once('haproxy/haproxy.inc');
    require_once('haproxy/haproxy_socketinfo.inc');
}
edge_main($request);
