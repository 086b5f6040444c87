// The command line as a whole: from arguments to an exit code. Nothing below prints a stack trace. A command's
// file is loaded when it is asked for: loading all of them takes longer than most of them do.
import { Command, CommanderError } from 'commander';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import { packageVersion } from '../lib/version.ts';
import { type AddCommand, type Context, example } from './context.ts';
import { type Io, reportError, terminalIo, usage } from './io.ts';
import { shown } from './paths.ts';

/** In the order of the help text. */
const commands: Readonly<Record<string, () => Promise<AddCommand>>> = {
  mount: async () => (await import('./mount.ts')).addMount,
  list: async () => (await import('./list.ts')).addList,
  status: async () => (await import('./status.ts')).addStatus,
  conflicts: async () => (await import('./conflicts.ts')).addConflicts,
  diff: async () => (await import('./diff.ts')).addDiff,
  log: async () => (await import('./log.ts')).addLog,
  show: async () => (await import('./show.ts')).addShow,
  resolve: async () => (await import('./resolve.ts')).addResolve,
  undo: async () => (await import('./undo.ts')).addUndo,
  reconcile: async () => (await import('./reconcile.ts')).addReconcile,
  prune: async () => (await import('./prune.ts')).addPrune,
  export: async () => (await import('./export.ts')).addExport,
  plan: async () => (await import('./plan.ts')).addPlan,
  hold: async () => (await import('./hold.ts')).addHold,
  check: async () => (await import('./check.ts')).addCheck,
  'merge-file': async () => (await import('./merge-file.ts')).addMergeFile,
  umount: async () => (await import('./umount.ts')).addUmount,
};

/** `args` are latin1. Returns the exit code of the process. */
export async function run(args: readonly string[], io: Io = terminalIo()): Promise<number> {
  let code: ExitCode = EXIT.ok;
  const context: Context = {
    io,
    finish: (given) => {
      code = given;
    },
  };
  const verbs = [...Object.keys(commands), 'help'];
  const verb = verbs.includes(args[0] ?? '') ? (args[0] as string) : '';
  try {
    if (isMountHelperForm(args, verbs)) {
      const { mountHelper } = await import('./mount.ts');
      return await mountHelper(context, args);
    }
    if (verb === '' && args[0] !== undefined && !args[0].startsWith('-')) {
      throw usage(`${shown(args[0])}: unknown verb: see kasane --help`);
    }
    const program = await makeProgram(context, verb);
    await program.parseAsync(verb === 'mount' ? separateExport(args) : args, { from: 'user' });
    return code;
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(io, verb || helperVerb(args, verbs), error);
    if (error.exitCode === 0) return EXIT.ok;
    return reportError(io, verb, usage(commanderMessage(error, verb)));
  }
}

/** Commander would take the word after an option whose value may be left out for that value: here, the mount point. */
export function separateExport(args: readonly string[]): string[] {
  const end = args.indexOf('--');
  return args.map((arg, at) => (arg === '--export' && (end < 0 || at < end) ? '--export=on' : arg));
}

/** Whether the arguments are mount.fuse3's: SOURCE MNT -o OPTIONS, the first one being no verb. */
export function isMountHelperForm(args: readonly string[], verbs: readonly string[]): boolean {
  const [source, mountPoint] = args;
  if (source === undefined || mountPoint === undefined || source.startsWith('-')) return false;
  return !verbs.includes(source) && !mountPoint.startsWith('-') && args.slice(2).includes('-o');
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

/** With the one command that is asked for; for help, with all. */
async function makeProgram(context: Context, verb: string): Promise<Command> {
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
  const asked = commands[verb];
  for (const load of asked ? [asked] : Object.values(commands)) (await load())(program, context);
  for (const command of program.commands) settle(command, context);
  return program;
}

/** Commander neither exits nor prints errors: run() does. */
function settle(command: Command, { io }: Context): void {
  command.exitOverride();
  command.showSuggestionAfterError(false);
  command.configureOutput({ writeOut: (text) => io.out(text), writeErr: () => {}, outputError: () => {} });
}
