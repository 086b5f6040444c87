// Runs what is written to the control file, and keeps what came of it for control.last. NFS retransmits: the
// same ID@REV or SEQ again does nothing and succeeds; after a restart `repeatOk` tells the daemon the same.
import { E, errnoName } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';
import { escapeName } from '../lib/names.ts';
import { type Command, commandText, parseCommand } from './grammar.ts';
import type { Verbs } from './verbs.ts';

export interface CommandRunner {
  /** 0, or a negative errno. */
  run(bytes: Uint8Array): Promise<number>;
  /** Content of control.last: `seq verb errno message`, errno by name or 0. */
  last(): string;
  /** Grows when last() changes. */
  generation(): number;
}

/** How long a writer waits for a reconcile; it goes on without him. */
const RECONCILE_WAIT_MS = 1000;
/** Commands remembered; a retransmission comes within minutes. */
const REMEMBERED = 1000;

/**
 * What write(2) may return. knfsd turns any other errno into EIO with a warning in the kernel's log, ESTALE
 * and EAGAIN into retries: those become EINVAL, and control.last has the true one.
 */
const passed: ReadonlySet<number> = new Set([
  E.EINVAL,
  E.EOPNOTSUPP,
  E.EIO,
  E.EROFS,
  E.ENOENT,
  E.EPERM,
  E.EACCES,
  E.ENOSPC,
  E.EDQUOT,
  E.EISDIR,
]);

export function createCommandRunner(verbs: Verbs, warn: (message: string) => void): CommandRunner {
  const succeeded = new Set<string>();
  const running = new Map<string, Promise<string>>();
  let seq = 0;
  let generation = 0;
  let lastLine = '';

  const tell = (mine: number, verb: string, errno: number, message: string) => {
    // A reconcile that ends after a later verb was written does not cover that up.
    if (mine < seq) return;
    lastLine = `${mine} ${verb} ${errno === 0 ? '0' : errnoName(errno)} ${message}\n`;
    generation += 1;
  };

  const fail = (mine: number, command: Command, error: unknown): number => {
    const errno = error instanceof FsError ? error.errno : E.EIO;
    if (!(error instanceof FsError)) warn(`control: ${command.verb}: ${messageOf(error)}`);
    tell(mine, command.verb, errno, `${escapeName(commandText(command))}: ${messageOf(error)}`);
    return passed.has(errno) ? -errno : -E.EINVAL;
  };

  const remember = (text: string) => {
    succeeded.add(text);
    const oldest = succeeded.values().next().value;
    if (succeeded.size > REMEMBERED && oldest !== undefined) succeeded.delete(oldest);
  };

  const once = (text: string, start: () => Promise<string>): Promise<string> => {
    const there = running.get(text);
    if (there !== undefined) return there;
    const work = start().finally(() => running.delete(text));
    running.set(text, work);
    return work;
  };

  return {
    async run(bytes) {
      const mine = ++seq;
      const parsed = parseCommand(bytes);
      if ('errno' in parsed) {
        tell(mine, '-', parsed.errno, escapeName(parsed.reason));
        return -parsed.errno;
      }
      const { command } = parsed;
      const text = commandText(command);
      if (succeeded.has(text)) {
        tell(mine, command.verb, 0, `${escapeName(text)}: done before`);
        return 0;
      }
      const work = once(text, () => perform(verbs, command));
      const finished = work.then(
        (message) => {
          if (command.verb === 'resolve' || command.verb === 'undo') remember(text);
          tell(mine, command.verb, 0, message);
          return 0;
        },
        (error: unknown) => fail(mine, command, error),
      );
      if (command.verb !== 'reconcile') return finished;
      const started = wait(RECONCILE_WAIT_MS).then(() => {
        if (running.get(text) === work) tell(mine, command.verb, 0, `${escapeName(text)}: under way`);
        return 0;
      });
      return Promise.race([finished, started]);
    },
    last: () => lastLine,
    generation: () => generation,
  };
}

/** A promise that does not keep the process alive. */
function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds).unref();
  });
}

async function perform(verbs: Verbs, command: Command): Promise<string> {
  const text = escapeName(commandText(command));
  switch (command.verb) {
    case 'resolve': {
      const { id, rev, take } = command;
      const report = await verbs.resolve({ target: { id }, rev, take, recursive: false, repeatOk: true });
      return report.resolved.every((one) => one.already) ? `${text}: done before` : `${text}: done`;
    }
    case 'undo': {
      const report = await verbs.undo({ target: { seq: command.seq }, force: false, repeatOk: true });
      return report.already ? `${text}: done before` : `${text}: done`;
    }
    case 'reconcile': {
      const report = await verbs.reconcile(
        { path: command.path, dryRun: false, acceptBase: false },
        () => {},
      );
      return (
        `${text}: ${report.looked} looked at, ${report.merged} merged, ${report.dropped} dropped, ` +
        `${report.pending} pending, ${report.conflicts.length} in conflict`
      );
    }
    case 'hold':
      await verbs.hold();
      return `${text}: done`;
    case 'release':
      await verbs.release();
      return `${text}: done`;
  }
}
