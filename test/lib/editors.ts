// Editors and their like, each with a step between its reading and its writing, and the trial that all of them
// must stand: an update of the base before, between and after. Where the changes do not meet, both are there in
// the end; where they do, the guest's file is as the guest left it, and a conflict is open. Nothing is lost in
// silence, whatever the tool's way of writing.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from './agent.ts';
import { mountTest } from './needs.ts';
import { runOk, sh, waitUntil } from './run.ts';
import {
  BASE_LINE,
  GUEST_LINE,
  type Guest,
  makeGate,
  text,
  throughGate,
  type UpdateKind,
  withGuest,
} from './versioning.ts';

const moments = ['before', 'between', 'after'] as const;

/** Changes the guest's line of a file; `between` happens after it has read and before it writes. */
type Edit = (guest: Guest, name: string, between: () => Promise<void>) => Promise<void>;

export interface Editor {
  edit: Edit;
  commands?: readonly string[];
  /** The tool reads what it is about to replace: it has seen the update, and what it puts there is the answer. */
  compares?: boolean;
}

interface Case {
  name: string;
  kind: UpdateKind;
  moment: (typeof moments)[number];
  overlaps: boolean;
}

const guestCommands = [`s/^line ${GUEST_LINE}$/guest/`, `s/^BASE ${GUEST_LINE}$/guest/`];

/** The change of the guest, on a string. */
function edited(content: string): string {
  return content.replace(new RegExp(`^(?:line|BASE) ${GUEST_LINE}$`, 'm'), 'guest');
}

function casesFor(kinds: readonly UpdateKind[]): Case[] {
  return kinds.flatMap((kind) =>
    moments.flatMap((moment) =>
      [false, true].map((overlaps) => {
        const name = `${moment}-${kind.replace(/\W+/g, '-')}-${overlaps ? 'overlap' : 'apart'}.conf`;
        return { name, kind, moment, overlaps };
      }),
    ),
  );
}

/** Another line of the same length, so that the size tells nothing. */
const updated = (one: Case) => {
  const line = one.overlaps ? GUEST_LINE : BASE_LINE;
  return text({ [line]: `BASE ${line}` });
};

/** One case; a sentence if its content is not what it has to be. */
async function tryOne(
  guest: Guest,
  editor: Editor,
  one: Case,
  expected: Set<string>,
): Promise<string | null> {
  const update = () => guest.update(one.name, updated(one), one.kind);
  // Somebody has read it before, as somebody always has.
  await guest.read(one.name);
  if (one.moment === 'before') await update();
  await editor.edit(guest, one.name, one.moment === 'between' ? update : async () => {});
  if (one.moment === 'after') await update();
  const guestAlone = text({ [GUEST_LINE]: 'guest' });
  let content = await guest.read(one.name);
  // Whoever has just been forked may have the base's file open for writing still: it is judged once more then.
  if (one.moment === 'after' && !one.overlaps)
    await waitUntil(async () => {
      content = await guest.read(one.name);
      return content !== guestAlone;
    });
  let wanted = guestAlone;
  if (editor.compares && one.moment === 'between') {
    // It has decided.
  } else if (one.overlaps) {
    if (one.moment !== 'before') expected.add(one.name);
  } else if (content === guestAlone && one.moment === 'between' && one.kind.startsWith('in place')) {
    // The bytes that the editor had read are gone: a person is asked, and nothing is lost.
    expected.add(one.name);
  } else {
    wanted = text({ [BASE_LINE]: `BASE ${BASE_LINE}`, [GUEST_LINE]: 'guest' });
  }
  if (content === wanted) return null;
  const first = text().split('\n');
  const lines = content.split('\n').filter((line, i) => line !== first[i]);
  return `${one.name}: ${JSON.stringify(lines)}`;
}

/** All cases with one editor on one mount, some at a time. */
async function tryAll(guest: Guest, editor: Editor, cases: readonly Case[]): Promise<void> {
  const expected = new Set<string>();
  const problems: string[] = [];
  const left = [...cases];
  const work = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) {
      const problem = await tryOne(guest, editor, one, expected);
      if (problem !== null) problems.push(problem);
    }
  };
  await Promise.all([work(), work(), work()]);
  // While somebody has the base's file open for writing, as who has just been forked does, its version is not judged.
  let found: string[] = [];
  await waitUntil(async () => {
    found = (await guest.conflicts()).map((conflict) => conflict.path).sort();
    return found.length >= expected.size;
  });
  expect({ problems, found }).toEqual({ problems: [], found: [...expected].sort() });
}

export function editorTest(name: string, kinds: readonly UpdateKind[]): void {
  const editor = editors[name] as Editor;
  const cases = casesFor(kinds);
  mountTest(
    `${name}: an update before, between and after is merged, and is never lost in silence`,
    () =>
      // An update between an editor's look at the file and its write, which it may take for a danger, is one at once.
      withGuest(
        {
          files: Object.fromEntries(cases.map((one) => [one.name, text()])),
          options: ['--coherence', 'check'],
        },
        (guest) => tryAll(guest, editor, cases),
      ),
    { commands: editor.commands ?? [], timeout: 120_000 },
  );
}

function vim(backupcopy: string): Editor {
  const set = `set nocompatible writebackup backupcopy=${backupcopy} backupskip= noswapfile viminfo=`;
  return {
    commands: ['vim'],
    edit: async (guest, name, between) => {
      const gate = makeGate(guest.dir);
      const hook = `${guest.dir}/${name}.hook`;
      fs.writeFileSync(hook, gate.script);
      const changes = guestCommands.map((one) => `%${one}e`);
      const commands = [...changes, `silent !sh ${hook}`, 'write!', 'quit!'];
      const args = ['-u', 'NONE', '-i', 'NONE', '-es', '--cmd', set];
      args.push(...commands.flatMap((command) => ['-c', command]), guest.at(name));
      // vim asks whether to overwrite a file that has a new mtime; the answer comes from its input.
      await throughGate(gate, between, runOk('vim', args, { input: 'y\n' }));
    },
  };
}

/** A program of its own that reads, and later writes. */
function program(write: (agent: Agent, file: string, content: string) => Promise<unknown>): Editor {
  return {
    edit: async (guest, name, between) => {
      const agent = startAgent();
      const file = guest.at(name);
      const content = await agent.call<string>('readFileSync', file, 'utf8');
      await between();
      await write(agent, file, edited(content));
      await agent.stop();
    },
  };
}

/** Those that put a prepared file in place: it was read by one process, and is written by another. */
function replacing(script: string, more: Partial<Editor> = {}): Editor {
  return {
    ...more,
    edit: async (guest, name, between) => {
      const content = await guest.read(name);
      const prepared = `${guest.dir}/${name}.prepared`;
      fs.writeFileSync(prepared, edited(content));
      await between();
      await sh(script, [prepared, guest.at(name)]);
    },
  };
}

export const editors: Record<string, Editor> = {
  'vim with backupcopy=auto': vim('auto'),
  'vim with backupcopy=yes': vim('yes'),
  'vim with backupcopy=no': vim('no'),
  'sed -i': {
    edit: async (guest, name, between) => {
      const gate = makeGate(guest.dir);
      const commands = [...guestCommands, `18e ${gate.script}`].flatMap((command) => ['-e', command]);
      await throughGate(gate, between, runOk('sed', ['-i', ...commands, guest.at(name)]));
    },
  },
  'an editor that truncates and writes what it has read': program((agent, file, content) =>
    agent.call('writeFileSync', file, content),
  ),
  'an editor that opens for reading and writing, and truncates': program(async (agent, file, content) => {
    const fd = await agent.call<number>('openSync', file, 'r+');
    await agent.call('ftruncateSync', fd);
    await agent.call('writeSync', fd, content);
    await agent.call('closeSync', fd);
  }),
  'an editor that reads the file again for a backup': program(async (agent, file, content) => {
    await agent.call('copyFileSync', file, `${file}.bak`);
    await agent.call('writeFileSync', file, content);
  }),
  'an editor that writes a new file, syncs it and renames it': program(async (agent, file, content) => {
    const fd = await agent.call<number>('openSync', `${file}.new`, 'wx');
    await agent.call('writeSync', fd, content);
    await agent.call('fsyncSync', fd);
    await agent.call('closeSync', fd);
    await agent.call('renameSync', `${file}.new`, file);
  }),
  'an editor that removes the file and makes it anew': program(async (agent, file, content) => {
    await agent.call('unlinkSync', file);
    await agent.call('writeFileSync', file, content);
  }),
  'mv NEW OLD': replacing('cp "$1" "$2.new"; mv "$2.new" "$2"'),
  'rm, then a new file': replacing('rm "$2"; cat "$1" > "$2"'),
  'cp --remove-destination': replacing('cp --remove-destination "$1" "$2"'),
  install: replacing('install -m 644 "$1" "$2"'),
  rsync: replacing('rsync -I "$1" "$2"', { commands: ['rsync'], compares: true }),
  'rsync --inplace': replacing('rsync -I --inplace --no-whole-file "$1" "$2"', {
    commands: ['rsync'],
    compares: true,
  }),
  'a file moved away, copied back and written over': replacing(
    'mv "$2" "$2-"; cp "$2-" "$2"; cat "$1" > "$2"',
  ),
};
