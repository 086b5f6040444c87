// The command line as a whole: from arguments to an exit code. Nothing below prints a stack trace.
import { Command, CommanderError } from 'commander';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import { packageVersion } from '../lib/version.ts';
import { addCheck } from './check.ts';
import { addConflicts } from './conflicts.ts';
import { type AddCommand, type Context, example } from './context.ts';
import { daemonMain } from './daemon.ts';
import { addDiff } from './diff.ts';
import { addExport } from './export.ts';
import { addHold } from './hold.ts';
import { type Io, reportError, terminalIo, usage } from './io.ts';
import { addList } from './list.ts';
import { addLog } from './log.ts';
import { addMergeFile } from './merge-file.ts';
import { addMount, isMountHelperForm, mountHelper } from './mount.ts';
import { shown } from './paths.ts';
import { addPlan } from './plan.ts';
import { addPrune } from './prune.ts';
import { addReconcile } from './reconcile.ts';
import { addResolve } from './resolve.ts';
import { addShow } from './show.ts';
import { addStatus } from './status.ts';
import { addUmount } from './umount.ts';
import { addUndo } from './undo.ts';

const commands: readonly AddCommand[] = [
  addMount,
  addList,
  addStatus,
  addConflicts,
  addDiff,
  addLog,
  addShow,
  addResolve,
  addUndo,
  addReconcile,
  addPrune,
  addExport,
  addPlan,
  addHold,
  addCheck,
  addMergeFile,
  addUmount,
];

/** `args` are latin1. Returns the exit code of the process. */
export async function run(args: readonly string[], io: Io = terminalIo()): Promise<number> {
  if (args[0] === 'daemon') return daemonMain();
  let code: ExitCode = EXIT.ok;
  const context: Context = {
    io,
    finish: (given) => {
      code = given;
    },
  };
  const program = makeProgram(context);
  const verbs = [...program.commands.map((command) => command.name()), 'help'];
  const verb = verbs.includes(args[0] ?? '') ? (args[0] as string) : '';
  try {
    if (isMountHelperForm(args, verbs)) return await mountHelper(context, args);
    if (verb === '' && args[0] !== undefined && !args[0].startsWith('-')) {
      throw usage(`${shown(args[0])}: unknown verb: see kasane --help`);
    }
    await program.parseAsync(args, { from: 'user' });
    return code;
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(io, verb || helperVerb(args, verbs), error);
    if (error.exitCode === 0) return EXIT.ok;
    return reportError(io, verb, usage(commanderMessage(error, verb)));
  }
}

function helperVerb(args: readonly string[], verbs: readonly string[]): string {
  return isMountHelperForm(args, verbs) ? 'mount' : '';
}

/** `error: unknown option '--x'` becomes `unknown option '--x': see kasane VERB --help`. */
function commanderMessage(error: CommanderError, verb: string): string {
  const text = error.message.replace(/^error: /, '').replace(/\.?\s*(\n[\s\S]*)?$/, '');
  const help = verb === '' ? 'kasane --help' : `kasane ${verb} --help`;
  return error.code === 'commander.help' ? `no verb: see ${help}` : `${shown(text)}: see ${help}`;
}

function makeProgram(context: Context): Command {
  const program = new Command('kasane');
  program
    .description(
      'A union file system with versioning: guests share a base, keep their changes, and still get its updates.',
    )
    .version(packageVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [verb]', 'print help of a verb')
    .addHelpText(
      'after',
      example('kasane mount --base /srv/base --overlay /srv/guests/web1 /mnt/web1', 'kasane conflicts'),
    );
  // Else `show --version N` would print ours.
  program.enablePositionalOptions();
  settle(program, context);
  for (const add of commands) add(program, context);
  for (const command of program.commands) settle(command, context);
  return program;
}

/** Commander neither exits nor prints errors: run() does. */
function settle(command: Command, { io }: Context): void {
  command.exitOverride();
  command.showSuggestionAfterError(false);
  command.configureOutput({ writeOut: (text) => io.out(text), writeErr: () => {}, outputError: () => {} });
}
