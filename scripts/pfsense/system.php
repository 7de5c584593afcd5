<?php
/* The firewall as a machine: processes called haproxy, who listens where, and which interface has which address. */

/** @return array<int, string> command line by process id, of every process called haproxy */
function edge_haproxy_processes(): array
{
    exec('pgrep -x haproxy', $pids);
    $processes = [];
    foreach ($pids as $pid) {
        $command = trim((string) exec('ps -ww -o command= -p ' . (int) $pid));
        if ($command !== '') {
            $processes[(int) $pid] = $command;
        }
    }
    return $processes;
}

/** Whether the package started this one: the running one, an old one that still serves open connections, or a test. */
function edge_is_package(string $command): bool
{
    return str_contains($command, edge_path('varetc_path') . '/haproxy');
}

/**
 * What another program called haproxy would break, or null. The package asks `pgrep -x haproxy` whether its own is running: with any
 * other one it starts by taking over sockets from a process that is not there, and fails; its stop ends both.
 */
function edge_foreign_haproxy(): ?string
{
    foreach (edge_haproxy_processes() as $pid => $command) {
        if (!edge_is_package($command)) {
            return "another program called haproxy is running: process {$pid}, `" . substr($command, 0, 200) . '`. The HAProxy package takes it '
                . 'for its own and then cannot start; run it under another name (docs/runbooks/edge.md, "A second HAProxy")';
        }
    }
    return null;
}

/**
 * @return array<string, array<int, string>> program by endpoint and process id, of every TCP listener; the package's HAProxy has no name.
 *     Raises nothing; empty when sockstat fails.
 */
function edge_listeners(): array
{
    $package = array_filter(edge_haproxy_processes(), 'edge_is_package');
    exec('sockstat -46lq -P tcp', $lines);
    $listeners = [];
    foreach ($lines as $line) {
        if (preg_match('/^\S+\s+(\S.*?)\s+(\d+)\s+\d+\s+tcp[46]+\s+(\S+):(\d+)\s/', $line, $match)) {
            $listeners[edge_write_endpoint($match[3], $match[4])][(int) $match[2]] = isset($package[(int) $match[2]]) ? '' : $match[1];
        }
    }
    return $listeners;
}

/** A program besides the package's HAProxy that listens on an endpoint, as `name (process 123)`, or null. */
function edge_other_listener(array $listeners, string $endpoint): ?string
{
    foreach (array_filter($listeners[$endpoint] ?? []) as $pid => $program) {
        return "{$program} (process {$pid})";
    }
    return null;
}

/** The interface that has an address by the configuration, whether it is up now or not; virtual addresses count. Null when none has it. */
function edge_address_interface(string $address): ?string
{
    $same = fn($other) => is_ipaddr((string) $other) && inet_pton((string) $other) === inet_pton($address);
    foreach (array_keys(config_get_path('interfaces', [])) as $interface) {
        if ($same(str_contains($address, ':') ? get_interface_ipv6($interface) : get_interface_ip($interface))) {
            return (string) $interface;
        }
    }
    foreach (edge_items('virtualip/vip') as $vip) {
        if ($same($vip['subnet'] ?? '')) {
            return (string) ($vip['interface'] ?? '');
        }
    }
    return null;
}

function edge_is_present(string $address): bool
{
    $socket = @stream_socket_server('tcp://' . edge_write_endpoint($address, '0'), $number, $error);
    if ($socket) {
        fclose($socket);
    }
    return (bool) $socket;
}

/** The package's own lock: HAProxy inherits it when the run that started it is killed, and the next process to take it waits forever. */
function edge_package_unlocked(): void
{
    edge_step('mutex');
    $file = edge_path('tmp_path') . '/haproxy.lock';
    $handle = is_file($file) ? fopen($file, 'ce') : null;
    if (!$handle) {
        return;
    }
    if (!edge_wait(10, fn() => flock($handle, LOCK_EX | LOCK_NB))) {
        throw new EdgeRefusal('mutex', 'the HAProxy package\'s own lock is held, probably by HAProxy since a run was killed while it started; '
            . 'stop and start HAProxy (Status > Services > haproxy), then run this again');
    }
    flock($handle, LOCK_UN);
    fclose($handle);
}
