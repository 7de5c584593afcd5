<?php
/*
 * The agent's ground: what every verb needs. Written for PHP 8.2 to 8.5 and pfSense from 2.7.2 on (config_get_path, config_set_path).
 *
 * The client sends one program on the standard input of /usr/local/bin/php: its request, then these files. Nothing runs before
 * the very last line of agent.php, so a connection that breaks half-way starts nothing. The answer is one line: EDGE_SENTINEL and
 * JSON. Exit codes are those of EDGE_EXIT, by step.
 */

const EDGE_SENTINEL = 'MAILSERVER-EDGE ';

const EDGE_EXIT = [
    'request' => 2,        // the request itself makes no sense
    'precondition' => 10,  // the package is missing or disabled, this is not the CARP master
    'mutex' => 11,         // another run of the agent is at work
    'unapplied' => 12,     // an administrator has changes that are saved and not yet applied
    'conflict' => 13,      // somebody else's item stands in the way
    'gate' => 14,          // mail does not come through HAProxy, so no redirect may lead to it
    'test' => 15,          // HAProxy refuses the configuration; nothing was written
    'binds' => 16,         // the configuration would listen elsewhere than it should; nothing was written
    'servers' => 22,       // no server would answer that did before; nothing was written
    'concurrent' => 17,    // the configuration changed between reading and writing; nothing was written
    'write' => 18,         // the configuration could not be written
    'apply' => 19,         // written, refused when applied, rolled back
    'verify' => 20,        // applied, does not do what it should, rolled back
    'rollback' => 21,      // rolling back failed: look at the firewall now
    'fatal' => 255,        // PHP or the firewall's own code broke off
];

class EdgeRefusal extends Exception
{
    public function __construct(public string $step, string $message, public bool $rolled_back = false)
    {
        parent::__construct($message);
    }
}

/** What one run knows: where it stands, and how to get back. */
class EdgeRun
{
    public string $step = 'request';
    public bool $answered = false;
    public bool $committed = false;
    /** @var ?callable */
    public $undo = null;
    /** @var mixed the mutex's handle; close-on-exec, because HAProxy would inherit it and hold it for good */
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

/** The configuration as it is on disk, not as a cache or an earlier call remembers it. */
function edge_fresh_read(): void
{
    // Before the reading: what somebody writes meanwhile must be missed at the commit, not taken for what was read.
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
            throw new EdgeRefusal('mutex', 'another run has held the firewall for ten seconds');
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

/** Compare-and-swap: write only if the file is still the one that was read, then read back what was written. */
function edge_commit(string $description): void
{
    edge_step('concurrent');
    if (edge_config_digest() !== edge_run()->digest) {
        throw new EdgeRefusal('concurrent', 'the configuration changed while this ran; nothing was written, run it again');
    }
    edge_step('write');
    edge_run()->committed = true;
    $written = write_config($description);
    if ($written === false || $written === -1) {
        edge_run()->committed = edge_config_digest() !== edge_run()->digest;
        throw new EdgeRefusal('write', 'the firewall refused to write config.xml (read-only user, full disk?)');
    }
    edge_run()->digest = edge_config_digest();
}

/**
 * The journal holds our own items as they were before a change, from the commit until it is verified. A run that is cut off
 * leaves it behind, and the next one then rolls back to it, not to the half-proven state in between.
 */
function edge_journal_file(string $kind): string
{
    return edge_path('cf_conf_path') . "/mailserver-edge-{$kind}.json";
}

function edge_journal_read(string $kind, array $now): array
{
    $file = edge_journal_file($kind);
    $journal = is_file($file) ? json_decode((string) file_get_contents($file), true) : null;
    // An administrator who changed our items since then has settled the matter.
    return is_array($journal) && $journal['written'] == $now ? $journal['previous'] : $now;
}

/** Commit under a journal. `$now` is what memory holds of ours, `$previous` what to go back to. */
function edge_journaled_commit(string $kind, array $previous, array $now, ?string $description): void
{
    $file = edge_journal_file($kind);
    $interrupted = is_file($file);
    $handle = fopen("{$file}.new", 'w');
    $text = (string) json_encode(['previous' => $previous, 'written' => $now], JSON_THROW_ON_ERROR);
    if (!$handle || !chmod("{$file}.new", 0600) || fwrite($handle, $text) === false || !fsync($handle)) {
        throw new EdgeRefusal('write', 'the journal of the change could not be written; nothing was changed');
    }
    fclose($handle);
    rename("{$file}.new", $file);
    if ($description === null) {
        return;
    }
    try {
        edge_commit($description);
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

/** Set or remove one field, and only when its meaning changes: an empty tag and a missing one are the same. */
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

/** A fatal error or a die() in the firewall's own code: go back if something was written, then say so. */
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

/** Run what follows a commit; when it fails, go back to `$undo` and say which step it was. */
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
            throw new EdgeRefusal('rollback', "{$problem->getMessage()}; and going back failed: {$worse->getMessage()}");
        }
        throw new EdgeRefusal($step, $problem->getMessage(), true);
    }
}
