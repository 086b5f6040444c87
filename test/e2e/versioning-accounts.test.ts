// The account files with the tools that write them: brought up together, reconciled wholly or not at all. Until
// records are merged, what both sides changed is in conflict, and the guest's files are as its tools left them.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplaceAll } from '../lib/base-update.ts';
import { mountTest } from '../lib/needs.ts';
import { run, runOk, waitUntil } from '../lib/run.ts';
import { type Guest, makeGate, throughGate, withGuest } from '../lib/versioning.ts';

const names = ['passwd', 'shadow', 'group', 'gshadow', 'subuid', 'subgid'] as const;
type Name = (typeof names)[number];

const first: Record<Name, string> = {
  passwd: 'root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/:/bin/sh\n',
  shadow: 'root:*:19000:0:99999:7:::\nwww:*:19000:0:99999:7:::\n',
  group: 'root:x:0:\nwww:x:33:\n',
  gshadow: 'root:*::\nwww:!::\n',
  subuid: 'www:100000:65536\n',
  subgid: 'www:100000:65536\n',
};
/** What a package that brings a user of its own adds to them. */
const added: Partial<Record<Name, string>> = {
  passwd: 'svc:x:100:100::/:/usr/sbin/nologin\n',
  shadow: 'svc:!:19500::::::\n',
  group: 'svc:x:100:\n',
  gshadow: 'svc:!::\n',
};
const withUser = (name: Name) => first[name] + (added[name] ?? '');

const files = {
  ...Object.fromEntries(names.map((name) => [`etc/${name}`, first[name]])),
  'etc/login.defs':
    'UID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\nGID_MAX 60000\nENCRYPT_METHOD SHA512\nUSERGROUPS_ENAB yes\n',
  'etc/pam.d/passwd': 'password required pam_unix.so\n',
  'etc/pam.d/other': 'password required pam_unix.so\n',
};

function withAccounts(body: (guest: Guest) => Promise<void>, base = files): Promise<void> {
  return withGuest({ files: base }, body);
}

/** A package in the base brings a user: all four files at once. */
function addUserToBase(guest: Guest): Promise<void> {
  const files = (Object.keys(added) as Name[]).map((name) => [`${guest.base}/etc/${name}`, withUser(name)]);
  return guest.changeBase(() => dpkgReplaceAll(Object.fromEntries(files)));
}

/** With the mount's /etc in the place of /etc, in a mount namespace of its own. */
function inEtc(guest: Guest, script: string, args: readonly string[] = []): Promise<string> {
  const bound = `mount --bind "$0" /etc; ${script}`;
  return runOk('unshare', ['--mount', 'sh', '-ec', bound, guest.at('etc'), ...args]);
}

const seen = async (guest: Guest) =>
  Object.fromEntries(await Promise.all(names.map(async (name) => [name, await guest.read(`etc/${name}`)])));
const raw = (guest: Guest) => Object.fromEntries(names.map((name) => [name, guest.raw(`etc/${name}`)]));

interface Tool {
  commands: readonly string[];
  /** Between its reading and its (first) renaming, `between` happens, if it is to. */
  use: (guest: Guest, between: (() => Promise<void>) | null) => Promise<unknown>;
  /** The files that it changes. */
  changes: readonly Name[];
  /** What to look for in the first of them. */
  mark: string;
}

/**
 * Holds a tool up at its first rename, and does `between` as soon as the new file is written: one that is still empty
 * says nothing, pam_unix makes it before it opens the old one.
 */
function slowly(command: readonly string[], temporary: string, input = ''): Tool['use'] {
  const inject = ['-e', 'trace=rename,renameat,renameat2', '-e', 'inject=rename:delay_enter=1000000:when=1'];
  return async (guest, between) => {
    if (between === null) {
      const alone = [
        '--mount',
        'sh',
        '-ec',
        'mount --bind "$0" /etc; exec "$@"',
        guest.at('etc'),
        ...command,
      ];
      await runOk('unshare', alone, { input });
      return;
    }
    const bound = 'mount --bind "$0" /etc; exec strace "$@"';
    const args = ['--mount', 'sh', '-ec', bound, guest.at('etc'), '-f', '-qq', '-o', '/dev/null', ...inject];
    const tool = runOk('unshare', [...args, ...command], { input });
    const file = `${guest.overlay}/etc/${temporary}`;
    const written = () => (fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0;
    const watch = async () => {
      if (!(await waitUntil(written, 30_000, 5))) throw new Error(`${command[0]} never wrote ${temporary}`);
      await between();
    };
    await Promise.all([tool, watch()]);
  };
}

const tools: Record<string, Tool> = {
  useradd: {
    commands: ['useradd', 'strace', 'unshare'],
    use: slowly(['useradd', '-M', 'alice'], 'passwd+'),
    changes: names,
    mark: 'alice:x:1000:',
  },
  chpasswd: {
    commands: ['chpasswd', 'strace', 'unshare'],
    use: slowly(['chpasswd', '-e'], 'shadow+', 'www:$1$abc\n'),
    changes: ['shadow'],
    mark: 'www:$1$abc:',
  },
  passwd: {
    commands: ['passwd', 'strace', 'unshare'],
    use: slowly(['passwd', 'www'], 'nshadow', 'a long pass phrase\na long pass phrase\n'),
    changes: ['shadow'],
    mark: 'www:$',
  },
  vipw: {
    commands: ['vipw', 'unshare'],
    use: async (guest, between) => {
      const gate = makeGate(guest.dir);
      // vipw takes a file of the same second for unchanged.
      const edit = 'sed -i "s/^www:x:33:33:/&web/" "$1"; touch -d "+2 seconds" "$1"';
      fs.writeFileSync(`${guest.dir}/editor`, `#!/bin/sh\n${gate.script}\n${edit}\n`);
      fs.chmodSync(`${guest.dir}/editor`, 0o755);
      await throughGate(
        gate,
        between ?? (async () => {}),
        inEtc(guest, 'EDITOR="$1" vipw', [`${guest.dir}/editor`]),
      );
    },
    changes: ['passwd'],
    mark: 'www:x:33:33:web:',
  },
};

for (const [name, tool] of Object.entries(tools)) {
  mountTest(
    `${name}: an update before is built upon; one between or after ends in conflict, with the guest's files whole`,
    async () => {
      await withAccounts(async (guest) => {
        await seen(guest);
        await addUserToBase(guest);
        await tool.use(guest, null);
        const now = await seen(guest);
        for (const file of names) expect(now[file]).toContain(added[file] ?? '');
        expect(now[tool.changes[0] as Name]).toContain(tool.mark);
        expect(await guest.conflictList()).toEqual([]);
      });
      for (const moment of ['between', 'after']) {
        await withAccounts(async (guest) => {
          await seen(guest);
          const update = () => addUserToBase(guest);
          await tool.use(guest, moment === 'between' ? update : null);
          const left = raw(guest);
          expect(left[tool.changes[0] as Name]).toContain(tool.mark);
          if (moment === 'after') await update();
          // Not one of them is merged, dropped or touched.
          expect(await seen(guest)).toEqual(left);
          expect(raw(guest)).toEqual(left);
          for (const file of tool.changes) expect(left[file]).not.toContain('svc');
          const both = tool.changes.filter((file) => added[file] !== undefined);
          const expected = both.map((file) => `etc/${file} record`).sort();
          // Whoever has just been forked may have one of the base's files open still: it is judged once more then.
          await waitUntil(async () => {
            await seen(guest);
            return (await guest.conflictList()).length >= expected.length;
          });
          expect([moment, ...(await guest.conflictList())]).toEqual([moment, ...expected]);
        });
      }
    },
    { commands: tool.commands, timeout: 240_000 },
  );
}

mountTest('who changes one account file gets copies of all of them', () =>
  withAccounts(async (guest) => {
    await runOk('usermod', ['-P', guest.mnt, '-c', 'web', 'www']);
    expect(raw(guest)).toEqual({ ...first, passwd: first.passwd.replace('33:33:', '33:33:web') });
  }),
);

mountTest('account files that only one side has changed follow together', () =>
  withAccounts(async (guest) => {
    await runOk('usermod', ['-P', guest.mnt, '-c', 'web', 'www']);
    const passwd = await guest.read('etc/passwd');
    await guest.update('etc/group', 'root:x:0:\nwww:x:33:root\n');
    await guest.update('etc/gshadow', 'root:*::\nwww:!::root\n');
    const now = await seen(guest);
    expect(now.group).toBe('root:x:0:\nwww:x:33:root\n');
    expect(now.gshadow).toBe('root:*::\nwww:!::root\n');
    expect(now.passwd).toBe(passwd);
    expect(raw(guest)).toMatchObject({ group: null, gshadow: null, passwd });
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('nobody sees some of the account files followed and others not', () =>
  withGuest({ files, options: ['--settle', '1'] }, async (guest) => {
    await guest.mount.sh('true >> etc/passwd');
    expect(raw(guest)).toEqual(first);
    const paths = (Object.keys(added) as Name[]).map((name) => guest.at(`etc/${name}`));
    const agents = [startAgent(), startAgent()] as const;
    const reading = agents.map((agent, i) =>
      agent.call<string[]>('readTogether', i === 0 ? paths : [...paths].reverse(), 'svc', 15_000),
    );
    await addUserToBase(guest);
    // Who reads one after another may see the step in between, but never a later file older than an earlier one.
    for (const passes of await Promise.all(reading)) {
      expect(passes.filter((pass) => pass.includes('10'))).toEqual([]);
      expect(passes).toContain('1111');
    }
    for (const agent of agents) await agent.stop();
    expect(raw(guest)).toEqual({ ...raw(guest), passwd: null, shadow: null, group: null, gshadow: null });
  }),
);

mountTest('one account file in conflict holds the others back, until a person has decided', () =>
  withAccounts(async (guest) => {
    await runOk('usermod', ['-P', guest.mnt, '-p', '$1$abc', 'www']);
    const left = raw(guest);
    expect(left).toMatchObject({ passwd: first.passwd, group: first.group });
    await addUserToBase(guest);
    expect(await seen(guest)).toEqual(left);
    expect(await guest.conflictList()).toEqual(['etc/shadow record']);
    const resolved = await guest.kasane(['resolve', guest.at('etc/shadow'), '--take', 'base']);
    expect(resolved).toMatchObject({ code: 0 });
    expect(await seen(guest)).toEqual(Object.fromEntries(names.map((name) => [name, withUser(name)])));
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest('mv passwd passwd-; cp passwd- passwd: the new passwd still belongs to the base’s', () =>
  withAccounts(async (guest) => {
    await guest.mount.sh('cd etc; mv passwd passwd-; cp passwd- passwd; sed -i s,/bin/bash,/bin/zsh, passwd');
    const changed = first.passwd.replace('/bin/bash', '/bin/zsh');
    expect(await guest.read('etc/passwd')).toBe(changed);
    await addUserToBase(guest);
    expect(await guest.read('etc/passwd')).toBe(changed);
    expect(await guest.read('etc/passwd-')).toBe(first.passwd);
    expect(await guest.conflictList()).toEqual(['etc/passwd record']);
  }),
);

mountTest('a base that is itself an /etc has the same accounts', () =>
  withGuest({ files: first }, async (guest) => {
    const edit = await run('sed', ['-i', 's/33:33:/33:33:web/', guest.at('passwd')]);
    expect(edit).toMatchObject({ code: 0 });
    await guest.update('passwd', withUser('passwd'));
    await guest.update('group', withUser('group'));
    expect(await guest.read('group')).toBe(first.group);
    expect(await guest.read('passwd')).toBe(first.passwd.replace('33:33:', '33:33:web'));
    expect(await guest.conflictList()).toEqual(['passwd record']);
  }),
);
