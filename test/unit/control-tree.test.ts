import { beforeEach, describe, expect, test } from 'vitest';
import { type ControlStat, type ControlTree, createControlTree } from '../../src/control/tree.ts';
import { E } from '../../src/lib/errno.ts';
import { FsError } from '../../src/lib/errors.ts';
import { addConflict, oneConflict, type Stub, stubVerbs } from '../lib/stub-verbs.ts';

let stub: Stub;
let tree: ControlTree;
let generation: number;
let now: number;
let warnings: string[];

beforeEach(() => {
  stub = stubVerbs();
  generation = 1;
  now = 1_800_000_000_000;
  warnings = [];
  const sources = {
    verbs: stub.verbs,
    generation: () => generation,
    now: () => now,
    warn: (line: string) => void warnings.push(line),
  };
  tree = createControlTree(sources);
});

async function stat(path: string): Promise<ControlStat> {
  const found = await tree.stat(path);
  if (typeof found === 'number') throw new Error(`${path}: ${found}`);
  return found;
}

async function text(path: string): Promise<string> {
  const content = await tree.read(path);
  if (typeof content === 'number') throw new Error(`${path}: ${content}`);
  return content.toString('utf8');
}

const command = (line: string) => tree.write('control', Buffer.from(line));
const count = (verb: string) => stub.calls.filter(([name]) => name === verb).length;

describe('the control directory', () => {
  test('has the names and modes of interface.md, and inodes of their own', async () => {
    addConflict(stub);
    const modes: Record<string, string> = {};
    const inodes = new Set<number>();
    const walk = async (dir: string) => {
      for (const entry of (await tree.list(dir)) as { name: string; kind: string; ino: number }[]) {
        const path = dir === '' ? entry.name : `${dir}/${entry.name}`;
        const found = await stat(path);
        expect([found.kind, found.ino]).toEqual([entry.kind, entry.ino]);
        inodes.add(found.ino);
        modes[path] = found.mode.toString(8);
        if (found.kind === 'dir') await walk(path);
      }
    };
    await walk('');
    expect(modes).toEqual({
      status: '644',
      'status.json': '600',
      conflicts: '600',
      'conflicts.json': '600',
      events: '600',
      metrics: '644',
      control: '600',
      'control.last': '600',
      conflict: '700',
      'conflict/17': '700',
      'conflict/17/info': '400',
      'conflict/17/ancestor': '400',
      'conflict/17/overlay': '400',
      'conflict/17/merged': '400',
    });
    expect(inodes.size).toBe(Object.keys(modes).length);
  });

  test('every file tells its true size', async () => {
    addConflict(stub);
    stub.events.push({ seq: 1, epoch: 0, time: now, kind: 'conflict', path: 'etc/passwd' });
    const paths = ['status', 'status.json', 'conflicts', 'conflicts.json', 'events', 'metrics', 'control'];
    const more = [
      'control.last',
      ...['info', 'ancestor', 'overlay', 'merged'].map((name) => `conflict/17/${name}`),
    ];
    for (const path of [...paths, ...more]) {
      expect([path, (await stat(path)).size]).toEqual([path, ((await tree.read(path)) as Buffer).length]);
    }
  });

  test('what is not there is ENOENT, and kinds are kept apart', async () => {
    addConflict(stub);
    for (const path of [
      'x',
      'status/x',
      'conflict/18',
      'conflict/017',
      'conflict/17/base',
      'conflict/17/info/x',
    ]) {
      expect([path, await tree.stat(path)]).toEqual([path, -E.ENOENT]);
    }
    expect(await tree.read('conflict/17/base')).toBe(-E.ENOENT);
    expect(await tree.read('conflict')).toBe(-E.EISDIR);
    expect(await tree.list('status')).toBe(-E.ENOTDIR);
    expect(await tree.write('status', Buffer.from('x'))).toBe(-E.EACCES);
  });

  test('conflicts are lines of id, kind and escaped path between tabs', async () => {
    stub.conflicts = [oneConflict, { ...oneConflict, id: 18, kind: 'binary', path: 'etc/a\tb\xff' }];
    expect(await text('conflicts')).toBe('17\ttext\tetc/passwd\n18\tbinary\tetc/a\\x09b\\xff\n');
    const json = JSON.parse(await text('conflicts.json'));
    expect(json[0]).toEqual({
      id: 17,
      rev: 3,
      kind: 'text',
      path: 'etc/passwd',
      since: '2023-11-14T22:13:20.000Z',
    });
    expect(json[1].path).toBe('etc/a\\x09b\\xff');
    expect(Buffer.from(json[1].pathBytes, 'base64').toString('latin1')).toBe('etc/a\tb\xff');
  });

  test('status is key value lines, and metrics are Prometheus text', async () => {
    expect(await text('status')).toContain('mount_point /mnt/web1\nbase /srv/base\n');
    expect(await text('status')).toContain('\nconflicts 1\n');
    const metrics = await text('metrics');
    expect(metrics).toContain('kasane_requests_total{opcode="LOOKUP"} 3\n');
    expect(metrics).toContain('kasane_request_seconds_bucket{opcode="LOOKUP",le="+Inf"} 3\n');
    expect(metrics).toContain('# TYPE kasane_nodes gauge\nkasane_nodes 7\n');
  });
});

describe('generations', () => {
  test('a file is rendered once per generation', async () => {
    for (let i = 0; i < 5; i++) {
      await stat('status');
      await text('status');
    }
    expect(count('status')).toBe(1);
    await Promise.all([stat('conflicts'), stat('conflicts'), text('conflicts')]);
    expect(count('conflicts')).toBe(1);
  });

  test('generation and mtime change when the content does, and not otherwise', async () => {
    const first = await stat('status');
    generation = 2;
    now += 5000;
    expect(await stat('status')).toEqual(first);
    stub.status.counts.pending = 9;
    generation = 3;
    const second = await stat('status');
    expect(second.generation).toBe(first.generation + 1);
    expect(second.mtimeMs).toBe(now);
  });

  test('the mtime changes also where the clock has not moved', async () => {
    const first = await stat('status');
    stub.status.epoch += 1;
    generation = 2;
    expect((await stat('status')).mtimeMs).toBeGreaterThan(first.mtimeMs);
  });

  test('events only grow, and are asked for once', async () => {
    const event = (seq: number) => ({ seq, epoch: 1, time: now, kind: 'merged' as const, path: `f${seq}` });
    stub.events.push(event(4), event(7));
    const before = await text('events');
    expect(before).toMatch(/^4 1 2027-01-15T08:00:00.000Z merged f4\n7 1 \S+ merged f7\n$/);
    stub.events.push(event(8));
    generation = 2;
    expect(await text('events')).toBe(`${before}8 1 2027-01-15T08:00:00.000Z merged f8\n`);
    expect(stub.calls.filter(([verb]) => verb === 'events')).toEqual([
      ['events', { from: 0 }],
      ['events', { from: 8 }],
    ]);
  });

  test('who has a file open reads on in what it was, and what was appended at its end', async () => {
    stub.conflicts = [oneConflict];
    const reader = await tree.open('conflicts');
    const log = await tree.open('events');
    if (typeof reader === 'number' || typeof log === 'number') throw new Error('open failed');
    expect(String(await reader.read(0, 8))).toBe('17\ttext\t');
    expect(String(await log.read(0, 100))).toBe('');
    stub.conflicts = [];
    stub.events.push({ seq: 1, epoch: 0, time: now, kind: 'resolved', path: 'x' });
    generation = 2;
    expect(String(await reader.read(8, 100))).toBe('etc/passwd\n');
    expect(String(await log.read(0, 100))).toBe('1 0 2027-01-15T08:00:00.000Z resolved x\n');
    expect(String(await reader.read(0, 100))).toBe('');
  });

  test('who reads a file to its end has one rendering of it, though it has become longer meanwhile', async () => {
    stub.conflicts = [oneConflict];
    const reader = await tree.open('conflicts.json');
    if (typeof reader === 'number') throw new Error('open failed');
    const before = String(await reader.read(0, 10_000));
    stub.conflicts = [oneConflict, { ...oneConflict, id: 18 }];
    generation = 2;
    expect(String(await reader.read(before.length, 10_000))).toBe('');
    expect(JSON.parse(String(await reader.read(0, 10_000)))).toHaveLength(2);
  });

  test('a conflict that is closed is gone, and a moved side has a new mtime', async () => {
    addConflict(stub);
    const first = await stat('conflict/17/overlay');
    const detail = stub.details.get(17);
    if (detail === undefined) throw new Error('no detail');
    now += 1000;
    stub.details.set(17, { ...detail, rev: 4, overlay: { ...detail.overlay, size: 3 } });
    generation = 2;
    const second = await stat('conflict/17/overlay');
    expect([second.size, second.mtimeMs, second.generation]).toEqual([3, now, first.generation + 1]);
    stub.conflicts = [];
    generation = 3;
    expect(await tree.stat('conflict/17')).toBe(-E.ENOENT);
    expect(await tree.list('conflict')).toEqual([]);
  });
});

describe('verbs written to control', () => {
  test('are handed on, and control.last tells the outcome', async () => {
    addConflict(stub);
    expect(await command('resolve 17@3 base\n')).toBe(18);
    expect(stub.calls.at(-1)).toEqual([
      'resolve',
      { target: { id: 17 }, rev: 3, take: 'base', recursive: false, repeatOk: true },
    ]);
    expect(await text('control.last')).toBe('1 resolve 0 resolve 17@3 base: done\n');
  });

  test('sent twice are done once, and succeed', async () => {
    addConflict(stub);
    const both = await Promise.all([command('resolve 17@3 base\n'), command('resolve 17@3 base')]);
    expect(both).toEqual([18, 17]);
    stub.conflicts = [];
    expect(await command('resolve 17@3 base\n')).toBe(18);
    expect(count('resolve')).toBe(1);
    expect(await command('undo 5')).toBe(6);
    expect(await command('undo 5')).toBe(6);
    expect(count('undo')).toBe(1);
  });

  test('that fail are tried again, and NFS gets no errno that it takes for a stale handle', async () => {
    addConflict(stub);
    for (let i = 0; i < 2; i++) expect(await command('resolve 17@2 base')).toBe(-E.EINVAL);
    expect(count('resolve')).toBe(2);
    expect(await text('control.last')).toBe('2 resolve ESTALE resolve 17@2 base: it is at revision 3\n');
  });

  test('that are bad are EINVAL, those not there yet EOPNOTSUPP, each with its reason', async () => {
    expect(await command('frob\n')).toBe(-E.EINVAL);
    expect(await text('control.last')).toMatch(/^1 - EINVAL unknown verb frob: /);
    expect(await command('hold\n')).toBe(-E.EOPNOTSUPP);
    expect(await text('control.last')).toBe('2 hold EOPNOTSUPP hold: hold: not there yet\n');
  });

  test('a long reconcile does not keep its writer', async () => {
    let finish = () => {};
    stub.verbs.reconcile = async (request) => {
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      const counts = {
        looked: 2,
        merged: 1,
        dropped: 0,
        adopted: 0,
        kept: 0,
        pending: 1,
        failed: 0,
        full: 0,
      };
      return { ...counts, dryRun: request.dryRun, conflicts: [], baseAccepted: false };
    };
    expect(await command('reconcile etc')).toBe(13);
    expect(await text('control.last')).toBe('1 reconcile 0 reconcile etc: under way\n');
    finish();
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(await text('control.last')).toMatch(/^1 reconcile 0 reconcile etc: 2 looked at, 1 merged, /);
  });

  test('a verb that breaks is EIO and a line in the log', async () => {
    stub.verbs.undo = () => Promise.reject(new TypeError('boom'));
    expect(await command('undo 1')).toBe(-E.EIO);
    expect(warnings).toEqual(['control: undo: boom']);
    stub.verbs.status = () => Promise.reject(new FsError(E.EIO, 'base is gone'));
    expect(await tree.stat('status')).toBe(-E.EIO);
  });
});
