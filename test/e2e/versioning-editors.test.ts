// Editors and their like on real mounts, with an update of the base before, between and after their steps. Where
// the changes do not meet, both are there in the end; where they do, the guest's file is as the guest left it,
// and a conflict is open. Nothing is lost in silence, whatever the tool's way of writing.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh } from '../lib/run.ts';
import {
  BASE_LINE,
  GUEST_LINE,
  type Guest,
  makeGate,
  text,
  throughGate,
  type UpdateKind,
  updateKinds,
  withGuest,
} from '../lib/versioning.ts';

const moments = ['before', 'between', 'after'] as const;
type Moment = (typeof moments)[number];

interface Editor {
  /** Changes the guest's line of a file; `between` happens after it has read and before it writes. */
  edit: (guest: Guest, name: string, between: () => Promise<void>) => Promise<void>;
  commands?: readonly string[];
  /** The tool reads what it is about to replace: it has seen the update, and what it puts there is the answer. */
  compares?: boolean;
}

interface Case {
  name: string;
  kind: UpdateKind;
  moment: Moment;
  overlaps: boolean;
}

const guestLine = `s/^line ${GUEST_LINE}$/guest/; s/^base overlapping$/guest/`;
/** The change of the guest, on a string. */
const edited = (content: string) =>
  content.replace(new RegExp(`^(?:line ${GUEST_LINE}|base overlapping)$`, 'm'), 'guest');

const cases: Case[] = updateKinds.flatMap((kind, k) =>
  moments.flatMap((moment) =>
    [false, true].map((overlaps) => ({
      name: `${moment}-${k}-${overlaps ? 'overlap' : 'apart'}.conf`,
      kind,
      moment,
      overlaps,
    })),
  ),
);

const updated = (one: Case) =>
  one.overlaps ? text({ [GUEST_LINE]: 'base overlapping' }) : text({ [BASE_LINE]: 'base' });

/** Does all cases with one editor on one mount, and compares at the end. */
async function tryAll(guest: Guest, editor: Editor): Promise<void> {
  const expected: string[] = [];
  const problems: string[] = [];
  for (const one of cases) {
    const update = () => guest.update(one.name, updated(one), one.kind);
    // Somebody has read it before, as somebody always has.
    await guest.read(one.name);
    if (one.moment === 'before') await update();
    await editor.edit(guest, one.name, one.moment === 'between' ? update : async () => {});
    if (one.moment === 'after') await update();
    const content = await guest.read(one.name);
    const merged = text({ [BASE_LINE]: 'base', [GUEST_LINE]: 'guest' });
    const guestAlone = text({ [GUEST_LINE]: 'guest' });
    if (editor.compares && one.moment === 'between') {
      if (content !== guestAlone) problems.push(`${one.name}: ${differing(content)}`);
    } else if (one.overlaps) {
      if (one.moment !== 'before') expected.push(one.name);
      if (content !== guestAlone) problems.push(`${one.name}: ${differing(content)}`);
    } else if (content === guestAlone && one.moment === 'between' && one.kind.startsWith('in place')) {
      // The bytes that the editor had read are gone: a person is asked, and nothing is lost.
      expected.push(one.name);
    } else if (content !== merged) {
      problems.push(`${one.name}: ${differing(content)}`);
    }
  }
  const found = (await guest.conflicts()).map((conflict) => conflict.path).sort();
  expect({ problems, found }).toEqual({ problems: [], found: expected.sort() });
}

/** The lines that are not those of the first version. */
function differing(content: string): string {
  const first = text().split('\n');
  return JSON.stringify(content.split('\n').filter((line, i) => line !== first[i]));
}

function editorTest(name: string, editor: Editor): void {
  mountTest(
    `${name}: an update before, between and after is merged, and is never lost in silence`,
    () =>
      withGuest({ files: Object.fromEntries(cases.map((one) => [one.name, text()])) }, (guest) =>
        tryAll(guest, editor),
      ),
    { commands: editor.commands ?? [], timeout: 120_000 },
  );
}

for (const backupcopy of ['auto', 'yes', 'no']) {
  editorTest(`vim with backupcopy=${backupcopy}`, {
    commands: ['vim'],
    edit: async (guest, name, between) => {
      const gate = makeGate(guest.dir);
      const hook = `${guest.dir}/hook.sh`;
      fs.writeFileSync(hook, gate.script);
      const set = `set nocompatible writebackup backupcopy=${backupcopy} backupskip= noswapfile viminfo=`;
      const commands = [
        guestLine.split('; ').map((one) => `%${one}e`),
        [`silent !sh ${hook}`, 'write!', 'quit!'],
      ];
      const args = commands.flat().flatMap((command) => ['-c', command]);
      const vim = runOk('vim', ['-u', 'NONE', '-i', 'NONE', '-es', '--cmd', set, ...args, guest.at(name)]);
      await throughGate(gate, between, vim);
    },
  });
}

editorTest('sed -i', {
  edit: async (guest, name, between) => {
    const gate = makeGate(guest.dir);
    const sed = runOk('sed', ['-i', '-e', guestLine, '-e', `18e ${gate.script}`, guest.at(name)]);
    await throughGate(gate, between, sed);
  },
});

editorTest('an editor that truncates and writes what it has read', {
  edit: async (guest, name, between) => {
    const agent = startAgent();
    const content = await agent.call<string>('readFileSync', guest.at(name), 'utf8');
    await between();
    await agent.call('writeFileSync', guest.at(name), edited(content));
    await agent.stop();
  },
});

editorTest('an editor that reads the file again for a backup', {
  edit: async (guest, name, between) => {
    const agent = startAgent();
    const content = await agent.call<string>('readFileSync', guest.at(name), 'utf8');
    await between();
    await agent.call('copyFileSync', guest.at(name), guest.at(`${name}.bak`));
    await agent.call('writeFileSync', guest.at(name), edited(content));
    await agent.stop();
  },
});

editorTest('an editor that writes a new file, syncs it and renames it', {
  edit: async (guest, name, between) => {
    const agent = startAgent();
    const content = await agent.call<string>('readFileSync', guest.at(name), 'utf8');
    await between();
    const fd = await agent.call<number>('openSync', guest.at(`${name}.new`), 'wx');
    await agent.call('writeSync', fd, edited(content));
    await agent.call('fsyncSync', fd);
    await agent.call('closeSync', fd);
    await agent.call('renameSync', guest.at(`${name}.new`), guest.at(name));
    await agent.stop();
  },
});

editorTest('an editor that removes the file and makes it anew', {
  edit: async (guest, name, between) => {
    const agent = startAgent();
    const content = await agent.call<string>('readFileSync', guest.at(name), 'utf8');
    await between();
    await agent.call('unlinkSync', guest.at(name));
    await agent.call('writeFileSync', guest.at(name), edited(content));
    await agent.stop();
  },
});

/** Those that put a prepared file in place: it was read by one process, and is written by another. */
function replacing(script: string): Editor['edit'] {
  return async (guest, name, between) => {
    const content = await guest.read(name);
    fs.writeFileSync(`${guest.dir}/prepared`, edited(content));
    await between();
    await sh(script, [`${guest.dir}/prepared`, guest.at(name)]);
  };
}

editorTest('mv NEW OLD', { edit: replacing('cp "$1" "$2.new"; mv "$2.new" "$2"') });
editorTest('rm, then a new file', { edit: replacing('rm "$2"; cat "$1" > "$2"') });
editorTest('cp --remove-destination', { edit: replacing('cp --remove-destination "$1" "$2"') });
editorTest('install', { edit: replacing('install -m 644 "$1" "$2"') });
editorTest('rsync', { commands: ['rsync'], compares: true, edit: replacing('rsync -I "$1" "$2"') });
editorTest('rsync --inplace', {
  commands: ['rsync'],
  compares: true,
  edit: replacing('rsync -I --inplace --no-whole-file "$1" "$2"'),
});
editorTest('a file moved away, copied back and written over', {
  edit: replacing('mv "$2" "$2-"; cp "$2-" "$2"; cat "$1" > "$2"'),
});
