// What `npm start` runs: the main job of Kasane on this machine's own /etc (a copy of it), told step by step.
// It checks each thing that it says, and ends with 1 and one line where what is seen is not what is promised.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Broken, mainFile, Stage, say } from './demo-stage.ts';

/** A change of one line: the first that matches becomes what `to` makes of it. */
interface Edit {
  match: RegExp;
  to: (line: string) => string;
}

/** A file of /etc with the lines that the guest and the update change. */
interface Part {
  file: string;
  guest: Edit;
  update: Edit;
}

const setting = (match: RegExp, first: string, second: string): Edit => ({
  match,
  to: (line) => (line === first ? second : first),
});

/** The guest's and the update's line lie apart: both changes can stand. */
const apart: readonly Part[] = [
  {
    file: 'login.defs',
    guest: setting(/^#?\s*UMASK\s+\d/, 'UMASK\t\t027', 'UMASK\t\t077'),
    update: setting(/^#?\s*PASS_MAX_DAYS\s+\d/, 'PASS_MAX_DAYS\t365', 'PASS_MAX_DAYS\t180'),
  },
  {
    file: 'adduser.conf',
    guest: setting(/^#?\s*DSHELL=/, 'DSHELL=/bin/sh', 'DSHELL=/bin/dash'),
    update: setting(/^#?\s*DIR_MODE=/, 'DIR_MODE=0750', 'DIR_MODE=0711'),
  },
];

/** Both change the same line in different ways. */
const overlapping: readonly Part[] = [
  {
    file: 'nsswitch.conf',
    guest: setting(
      /^#?\s*hosts:/,
      'hosts:          files mdns4_minimal dns',
      'hosts:          files mdns4 dns',
    ),
    update: setting(/^#?\s*hosts:/, 'hosts:          files resolve dns', 'hosts:          resolve files dns'),
  },
  {
    file: 'deluser.conf',
    guest: setting(/^#?\s*BACKUP\s*=/, 'BACKUP = 1', 'BACKUP = 0'),
    update: setting(/^#?\s*BACKUP\s*=/, 'BACKUP = 2', 'BACKUP = 3'),
  },
];

/** No guest touches it. */
const untouched = ['bash.bashrc', 'profile', 'deluser.conf', 'services'];

interface Cast {
  stage: Stage;
  merged: Part;
  disputed: Part;
  plain: string;
}

const guests = ['web1', 'web2'] as const;

/** The whole text, and number and content of the new line. */
function edited(text: string, edit: Edit): { text: string; number: number; line: string } {
  const lines = text.split('\n');
  const at = lines.findIndex((line) => edit.match.test(line));
  if (at < 0) throw new Broken(`no line matches ${edit.match}`);
  const line = edit.to(lines[at] as string);
  lines[at] = line;
  return { text: lines.join('\n'), number: at + 1, line };
}

/** The first whose lines this machine's file has. */
function choose(dir: string, parts: readonly Part[]): Part {
  for (const part of parts) {
    const file = path.join(dir, part.file);
    if (!fs.existsSync(file)) continue;
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    if (
      lines.some((line) => part.guest.match.test(line)) &&
      lines.some((line) => part.update.match.test(line))
    ) {
      return part;
    }
  }
  throw new Broken(
    `/etc has none of ${parts.map((part) => part.file).join(', ')} in the form that Debian ships`,
  );
}

async function prepare(stage: Stage): Promise<Cast> {
  stage.step('A base: a copy of this machine’s /etc. The original is only read.');
  // Who is not root may not read all of it.
  await stage.must('cp', ['-a', '/etc', `${stage.base}/`], process.getuid?.() === 0 ? [0] : [0, 1]);
  const etc = path.join(stage.base, 'etc');
  const count = (await stage.must('find', [etc])).trimEnd().split('\n').length;
  say(`   ${count} files and folders, in ${etc}`);
  const merged = choose(etc, apart);
  const disputed = choose(etc, overlapping);
  const plain = untouched.find((name) => name !== disputed.file && fs.existsSync(path.join(etc, name)));
  if (plain === undefined) throw new Broken(`/etc has none of ${untouched.join(', ')}`);
  return { stage, merged, disputed, plain };
}

async function mountGuests({ stage }: Cast): Promise<void> {
  stage.step('Two guests on that base, each with an overlay of its own.');
  say('   (--settle 0: merge at once; by default Kasane waits until the base has been still for 2 s)');
  for (const guest of guests) {
    fs.mkdirSync(stage.mnt(guest));
    fs.mkdirSync(stage.overlay(guest));
    const layers = ['--base', stage.base, '--overlay', stage.overlay(guest)];
    await stage.kasane(['mount', ...layers, '--settle', '0', stage.mnt(guest)]);
  }
  const base = await stage.fingerprint(path.join(stage.base, 'etc'));
  for (const guest of guests) {
    const same = (await stage.fingerprint(stage.mnt(guest, 'etc'))) === base;
    stage.promise(same, `${guest} shows the whole of the base, byte by byte`);
  }
}

async function editInGuest({ stage, merged, disputed }: Cast): Promise<void> {
  stage.step(`web1 edits two files: ${merged.file} and ${disputed.file}.`);
  for (const part of [merged, disputed]) {
    const before = await stage.read(path.join(stage.base, 'etc', part.file));
    const { text, number, line } = edited(before, part.guest);
    const file = stage.mnt('web1', 'etc', part.file);
    await stage.shown('sed', ['-i', `${number}s|.*|${line.replaceAll('\t', '\\t')}|`, file]);
    stage.promise(
      (await stage.read(file)) === text,
      `web1’s ${part.file} says “${line.replaceAll(/\s+/g, ' ')}”`,
    );
    const other = await stage.read(stage.mnt('web2', 'etc', part.file));
    stage.promise(other === before, `web2’s ${part.file} is still the base’s`);
  }
}

async function updateBase({ stage, merged, disputed, plain }: Cast): Promise<void> {
  stage.step('The base gets an update, as dpkg makes it: a new file, renamed over the old one.');
  const update = async (name: string, content: string, keepMtime: boolean) => {
    await stage.replaceAsDpkg(path.join(stage.base, 'etc', name), content, keepMtime);
    say(`   base/etc/${name}: replaced, ${keepMtime ? 'with the mtime of the old one' : 'with a new mtime'}`);
  };
  const text = (name: string) => fs.readFileSync(path.join(stage.base, 'etc', name), 'utf8');
  await update(plain, `${text(plain)}# security update: one line more\n`, true);
  await update(merged.file, edited(text(merged.file), merged.update).text, false);
  await update(disputed.file, edited(text(disputed.file), disputed.update).text, true);
}

async function whatGuestsSee({ stage, merged, disputed, plain }: Cast): Promise<void> {
  stage.step('What the guests see now.');
  const follows = async (guest: string, name: string) => {
    const content = await stage.read(path.join(stage.base, 'etc', name));
    const seen = await stage.eventually(stage.mnt(guest, 'etc', name), (now) => now === content);
    stage.promise(seen === content, `${guest} never touched ${name}: it follows the base`);
  };
  await follows('web1', plain);
  for (const name of [plain, merged.file, disputed.file]) await follows('web2', name);
  const file = stage.mnt('web1', 'etc', merged.file);
  const both = edited(await stage.read(path.join(stage.base, 'etc', merged.file)), merged.guest).text;
  const seen = await stage.eventually(file, (now) => now === both);
  stage.promise(seen === both, `web1’s ${merged.file} carries its own edit *and* the update`);
  await stage.kasane(['diff', file], [1]);
}

/** The conflict's id. */
async function conflictStands({ stage, disputed }: Cast, own: string): Promise<number> {
  stage.step(`${disputed.file} was changed in the same line by both: that needs a person.`);
  const file = stage.mnt('web1', 'etc', disputed.file);
  stage.promise((await stage.read(file)) === own, 'web1’s file is as web1 left it, without any markers');
  const list = stage.mnt('web1', '.kasane', 'conflicts');
  const listed = (seen: string) => seen.split('\n').find((line) => line.endsWith(`\tetc/${disputed.file}`));
  await stage.eventually(list, (now) => listed(now) !== undefined);
  const line = listed(await stage.shown('cat', [list]));
  stage.promise(line !== undefined, 'the conflict stands in /.kasane/conflicts: id, kind, path');
  await stage.kasane(['conflicts', stage.mnt('web1')], [1]);
  await stage.kasane(['conflicts', stage.mnt('web2')]);
  stage.promise(true, 'and web2 has none');
  return Number((line as string).split('\t')[0]);
}

async function resolveAndUndo({ stage, disputed }: Cast, own: string, id: number): Promise<void> {
  const file = stage.mnt('web1', 'etc', disputed.file);
  stage.step('Somebody decides: take the base’s version.');
  await stage.kasane(['resolve', file, '--take', 'base']);
  const taken = await stage.read(path.join(stage.base, 'etc', disputed.file));
  stage.promise((await stage.read(file)) === taken, `web1’s ${disputed.file} is the base’s now`);
  await stage.kasane(['conflicts', stage.mnt('web1')]);
  stage.promise(true, 'no conflict is left');

  stage.step('The story of that file.');
  const story = await stage.kasane(['log', file]);
  stage.promise(/conflict/.test(story) && /resolved/.test(story), 'it has the conflict and its resolution');

  stage.step('A change of mind: undo takes the resolution back.');
  await stage.kasane(['undo', file]);
  stage.promise((await stage.read(file)) === own, `web1’s ${disputed.file} is its own again`);
  const open = await stage.kasane(['conflicts', stage.mnt('web1')], [1]);
  stage.promise(open.startsWith(`${id}\t`), `the conflict is open again, under its old id ${id}`);
}

async function undoMerge({ stage, merged }: Cast, original: string): Promise<void> {
  stage.step(`undo takes a merge back, too: ${merged.file}.`);
  const file = stage.mnt('web1', 'etc', merged.file);
  await stage.kasane(['undo', file]);
  const own = edited(original, merged.guest).text;
  stage.promise((await stage.read(file)) === own, 'web1’s own edit stands, and the update is out again');
}

async function play(stage: Stage): Promise<void> {
  const cast = await prepare(stage);
  const original = await stage.read(path.join(stage.base, 'etc', cast.merged.file));
  await mountGuests(cast);
  await editInGuest(cast);
  const own = await stage.read(stage.mnt('web1', 'etc', cast.disputed.file));
  await updateBase(cast);
  const before = await stage.fingerprint(stage.base);
  await whatGuestsSee(cast);
  const id = await conflictStands(cast, own);
  await resolveAndUndo(cast, own, id);
  await undoMerge(cast, original);
  stage.step('And the base?');
  stage.promise((await stage.fingerprint(stage.base)) === before, 'no guest has written a byte to it');
}

function howToExplore(stage: Stage): void {
  const main = path.relative(process.cwd(), mainFile);
  say(`\nIt stays up in ${stage.dir} (for root only: it holds the secrets of /etc, too).`);
  say(`   look around   node ${main} status ${stage.mnt('web1')}`);
  say(`                 node ${main} --help`);
  for (const guest of guests) say(`   take it down  node ${main} umount ${stage.mnt(guest)}`);
  say(`                 rm -r ${stage.dir}`);
}

/** Whatever happened: nothing stays mounted. */
async function takeDown(stage: Stage): Promise<void> {
  await stage.close();
  say('\nEverything is taken down again.');
}

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== '--keep');
  if (unknown !== undefined) {
    fs.writeSync(2, `kasane: npm start knows --keep only, not ${unknown}\n`);
    return 2;
  }
  if (!fs.existsSync('/dev/fuse')) {
    fs.writeSync(2, 'kasane: this machine has no /dev/fuse, so nothing can be mounted\n');
    return 3;
  }
  const stage = new Stage();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stage.stop(signal));
  try {
    await play(stage);
  } catch (error) {
    const known = error instanceof Broken;
    fs.writeSync(2, `\nkasane: ${known ? stage.short(error.message) : String((error as Error).stack)}\n`);
    await takeDown(stage);
    return stage.stoppedBy === null ? 1 : 130;
  }
  if (args.includes('--keep')) howToExplore(stage);
  else await takeDown(stage);
  return 0;
}

process.exit(await main(process.argv.slice(2)));
