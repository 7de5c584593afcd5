<?php
/*
 * What every verb of the agent needs. For PHP 8.2 to 8.5 and pfSense 2.7.2 or newer (config_get_path, config_set_path).
 *
 * The client sends one program on the standard input of /usr/local/bin/php: its request, then these files. Nothing runs before
 * the last line of agent.php, so a connection that breaks off early starts nothing. The answer is one line: EDGE_SENTINEL and
 * JSON. Exit codes are those of EDGE_EXIT, by step.
 */

const EDGE_SENTINEL = 'MAILSERVER-EDGE ';

const EDGE_EXIT = [
    'request' => 2,        // the request is malformed
    'precondition' => 10,  // the package is missing or disabled, another haproxy runs, this is not the CARP master
    'mutex' => 11,         // another run of the agent is at work, or the package's lock is held
    'unapplied' => 12,     // an administrator saved changes and did not apply them
    'conflict' => 13,      // an item that is not ours is in the way
    'gate' => 14,          // mail does not get through HAProxy, so no redirect may point to it
    'test' => 15,          // HAProxy refuses the configuration; nothing was written
    'binds' => 16,         // the configuration would listen elsewhere than it should; nothing was written
    'servers' => 22,       // no server would answer that did before; nothing was written
    'concurrent' => 17,    // the configuration changed between reading and writing; nothing was written
    'write' => 18,         // the configuration could not be written, or the firewall did not keep what was written
    'apply' => 19,         // written, refused when applied, rolled back
    'verify' => 20,        // applied, does not work as it should, rolled back
    'rollback' => 21,      // rolling back failed: look at the firewall now
    'fatal' => 255,        // PHP or the firewall's own code broke off
];

// pf: how long it may take while the firewall reports progress, and once it reports none. The client's patience is in client.py.
const EDGE_RELOAD_SECONDS = 90;
const EDGE_IDLE_SECONDS = 15;
const EDGE_ANSWER_SECONDS = 10;

class EdgeRefusal extends Exception
{
    public function __construct(public string $step, string $message, public bool $rolled_back = false)
    {
        parent::__construct($message);
    }
}

/** The state of one run: its step, and how to roll back. */
class EdgeRun
{
    public string $step = 'request';
    public bool $answered = false;
    public bool $committed = false;
    /** @var ?callable */
    public $undo = null;
    /** @var mixed the mutex's handle; close-on-exec, because HAProxy would inherit it and hold it forever */
    public $mutex = null;
    public string $digest = '';
}

function edge_run(): EdgeRun
{
    static $run = null;
    return $run ??= new EdgeRun();
}

function edge_step(string $step): void
{
    edge_run()->step = $step;
}

function edge_path(string $kind): string
{
    return $GLOBALS['g'][$kind];
}

function edge_items(string $path): array
{
    $items = config_get_path($path, []);
    return is_array($items) ? array_values($items) : [];
}

/** The configuration as it is on disk, not as a cache or an earlier call has it. */
function edge_fresh_read(): void
{
    // Taken first: a write that happens during the read must be noticed at the commit.
    edge_run()->digest = edge_config_digest();
    if (function_exists('config_read_file')) {
        $read = config_read_file(false, false);
    } else {
        $GLOBALS['config'] = parse_config(true);
        $read = is_array($GLOBALS['config']);
    }
    if (!$read) {
        throw new EdgeRefusal('precondition', 'the firewall cannot read its own config.xml');
    }
}

function edge_config_digest(): string
{
    clearstatcache();
    return (string) md5_file(edge_path('cf_conf_path') . '/config.xml');
}

function edge_lock(): void
{
    edge_step('mutex');
    $handle = fopen(edge_path('tmp_path') . '/mailserver-edge.lock', 'ce');
    for ($tries = 0; !$handle || !flock($handle, LOCK_EX | LOCK_NB); $tries++) {
        if (!$handle || $tries >= 40) {
            throw new EdgeRefusal('mutex', 'another run of the agent has been at work for ten seconds');
        }
        usleep(250000);
    }
    edge_run()->mutex = $handle;
}

function edge_unlock(): void
{
    if (edge_run()->mutex) {
        flock(edge_run()->mutex, LOCK_UN);
        edge_run()->mutex = null;
    }
}

/**
 * Compare-and-swap: write only if the file is still the one that was read, then compare what the firewall reads back.
 * `$own` returns our own items of the configuration in memory.
 */
function edge_commit(string $description, callable $own): void
{
    edge_step('concurrent');
    if (edge_config_digest() !== edge_run()->digest) {
        throw new EdgeRefusal('concurrent', 'the configuration changed while this ran; nothing was written, run it again');
    }
    edge_step('write');
    edge_run()->committed = true;
    $wanted = $own();
    try {
        $written = write_config($description);
    } catch (TypeError $problem) {
        $written = [];  // 2.7.2 fails in its own report of what the comparison below finds
    }
    if ($written === false || $written === -1) {
        edge_run()->committed = edge_config_digest() !== edge_run()->digest;
        throw new EdgeRefusal('write', 'the firewall could not write config.xml (full disk, read-only file system, pending factory reset?)');
    }
    edge_fresh_read();
    if (edge_without_empty($own()) != edge_without_empty($wanted)) {
        edge_run()->committed = false;
        throw new EdgeRefusal('write', 'the firewall could not read back the config.xml that it wrote, and restored its newest backup; nothing was changed. '
            . 'Look for a special character, such as é, in a plain field of /cf/conf/config.xml.bad, and remove it in the web interface');
    }
}

/** Without empty fields: an empty tag, an empty list and a missing one are the same. */
function edge_without_empty(array $items): array
{
    $items = array_map(fn($item) => is_array($item) ? edge_without_empty($item) : (string) $item, $items);
    return array_filter($items, fn($item) => $item !== '' && $item !== []);
}

/**
 * The journal holds our own items as they were before a change, from the commit until it is verified. A run that is cut off
 * leaves it behind, and the next one then rolls back to it, not to the unverified state in between.
 */
function edge_journal_file(string $kind): string
{
    return edge_path('cf_conf_path') . "/mailserver-edge-{$kind}.json";
}

function edge_journal_read(string $kind, array $now): array
{
    $file = edge_journal_file($kind);
    $journal = is_file($file) ? json_decode((string) file_get_contents($file), true) : null;
    // Void once an administrator has changed our items since then.
    return is_array($journal) && $journal['written'] == $now ? $journal['previous'] : $now;
}

/** Commit under a journal. `$own` returns our own items in memory, `$previous` is what to roll back to; no description, no commit. */
function edge_journaled_commit(string $kind, array $previous, callable $own, ?string $description): void
{
    $file = edge_journal_file($kind);
    $interrupted = is_file($file);
    $handle = fopen("{$file}.new", 'w');
    $text = (string) json_encode(['previous' => $previous, 'written' => $own()], JSON_THROW_ON_ERROR);
    if (!$handle || !chmod("{$file}.new", 0600) || fwrite($handle, $text) === false || !fsync($handle)) {
        throw new EdgeRefusal('write', 'the journal of the change could not be written; nothing was changed');
    }
    fclose($handle);
    rename("{$file}.new", $file);
    if ($description === null) {
        return;
    }
    try {
        edge_commit($description, $own);
    } catch (EdgeRefusal $refusal) {
        if (!edge_run()->committed && !$interrupted) {
            edge_journal_clear($kind);
        }
        throw $refusal;
    }
}

function edge_journal_clear(string $kind): void
{
    if (is_file(edge_journal_file($kind))) {
        unlink(edge_journal_file($kind));
    }
}

/** Set or remove one field, only when its meaning changes: an empty tag and a missing one are the same. */
function edge_set(array &$item, string $field, string $value): void
{
    if ($value === '') {
        if (($item[$field] ?? '') !== '') {
            unset($item[$field]);
        }
    } elseif (($item[$field] ?? null) !== $value) {
        $item[$field] = $value;
    }
}

/** Poll until `$holds` returns true; false after `$seconds`. */
function edge_wait(float $seconds, callable $holds): bool
{
    for ($end = microtime(true) + $seconds; ; usleep(100000)) {
        if ($holds()) {
            return true;
        }
        if (microtime(true) >= $end) {
            return false;
        }
    }
}

function edge_stamp(): array
{
    return ['time' => (string) time(), 'username' => 'pulumi'];
}

/** `[2001:db8::1]:25` or `10.0.20.1:25` as address and port. */
function edge_endpoint(string $endpoint): array
{
    $colon = (int) strrpos($endpoint, ':');
    return [trim(substr($endpoint, 0, $colon), '[]'), substr($endpoint, $colon + 1)];
}

function edge_write_endpoint(string $address, string $port): string
{
    return str_contains($address, ':') ? "[{$address}]:{$port}" : "{$address}:{$port}";
}

function edge_answer(array $answer, int $code): never
{
    edge_unlock();
    edge_run()->answered = true;
    while (ob_get_level()) {
        ob_end_clean();
    }
    echo "\n" . EDGE_SENTINEL . json_encode($answer, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE) . "\n";
    exit($code);
}

function edge_refuse(EdgeRefusal $refusal): never
{
    edge_answer([
        'ok' => false,
        'step' => $refusal->step,
        'message' => $refusal->getMessage(),
        'rolled_back' => $refusal->rolled_back,
    ], EDGE_EXIT[$refusal->step]);
}

/** A fatal error or a die() in the firewall's own code: roll back if something was written, then report it. */
function edge_shutdown(): void
{
    $run = edge_run();
    if ($run->answered) {
        return;
    }
    $error = error_get_last();
    $text = $error ? $error['message'] : trim(strip_tags((string) ob_get_contents()));
    $message = "the firewall's own code broke off in step {$run->step}: " . substr($text, 0, 2000);
    $rolled_back = false;
    if ($run->committed && $run->undo) {
        try {
            ($run->undo)();
            $rolled_back = true;
        } catch (Throwable $problem) {
            $message .= '; rolling back failed: ' . $problem->getMessage();
        }
    }
    edge_answer(['ok' => false, 'step' => 'fatal', 'message' => $message, 'rolled_back' => $rolled_back], EDGE_EXIT['fatal']);
}

/** Run what follows a commit; when it fails, call `$undo` and report the step. */
function edge_or_roll_back(callable $rest, callable $undo): void
{
    try {
        $rest();
    } catch (Throwable $problem) {
        $step = $problem instanceof EdgeRefusal ? $problem->step : 'fatal';
        edge_run()->undo = null;
        try {
            edge_step('rollback');
            $undo();
        } catch (Throwable $worse) {
            throw new EdgeRefusal('rollback', "{$problem->getMessage()}; and rolling back failed: {$worse->getMessage()}");
        }
        throw new EdgeRefusal($step, $problem->getMessage(), true);
    }
}
