// The client of a measurement: a process that does one workload in the directory under test and prints the
// time it took and the number of operations as JSON. The same for every peer; starting it is not counted.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';

const [workload, dir, size] = process.argv.slice(2);
const scale = Number(size);

function timed(operations, work) {
  const start = process.hrtime.bigint();
  work();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  process.stdout.write(JSON.stringify({ seconds, operations }));
}

function filesOf(tree) {
  return fs
    .readdirSync(tree)
    .flatMap((sub) => fs.readdirSync(`${tree}/${sub}`).map((name) => `${tree}/${sub}/${name}`));
}

const command = (name, ...args) => execFileSync(name, args, { stdio: ['ignore', 'ignore', 'inherit'] });

const workloads = {
  stat() {
    const files = filesOf(`${dir}/tree`);
    for (const file of files) fs.lstatSync(file);
    timed(scale, () => {
      for (let i = 0; i < scale; i += 1) fs.lstatSync(files[i % files.length]);
    });
  },
  open() {
    const files = filesOf(`${dir}/tree`);
    const buffer = Buffer.alloc(4096);
    for (const file of files) fs.readFileSync(file);
    timed(scale, () => {
      for (let i = 0; i < scale; i += 1) {
        const fd = fs.openSync(files[i % files.length], 'r');
        fs.readSync(fd, buffer);
        fs.closeSync(fd);
      }
    });
  },
  create() {
    timed(scale, () => {
      for (let i = 0; i < scale; i += 1) {
        const name = `${dir}/tree/0/new${i % 50}`;
        fs.closeSync(fs.openSync(name, 'wx'));
        fs.unlinkSync(name);
      }
    });
  },
  untar() {
    timed(scale, () => command('tar', '-xf', `${dir}/../tree.tar`, '-C', `${dir}/into`));
  },
  walk() {
    timed(scale, () => command('find', `${dir}/tree`, '-printf', '%s %T@\\n'));
  },
  remove() {
    timed(scale, () => command('rm', '-r', `${dir}/tree`));
  },
  'remove-own'() {
    command('tar', '-xf', `${dir}/../tree.tar`, '-C', `${dir}/into`);
    timed(scale, () => command('rm', '-r', `${dir}/into/tree`));
  },
  read() {
    const buffer = Buffer.alloc(1 << 20);
    const whole = () => {
      const fd = fs.openSync(`${dir}/big`, 'r');
      while (fs.readSync(fd, buffer) > 0);
      fs.closeSync(fd);
    };
    whole();
    timed(scale, whole);
  },
  write() {
    const buffer = Buffer.alloc(1 << 20, 'kasane');
    timed(scale, () => {
      const fd = fs.openSync(`${dir}/into/big`, 'wx');
      for (let i = 0; i < scale; i += 1) fs.writeSync(fd, buffer);
      fs.closeSync(fd);
    });
  },
  /** Sees the merge of a file whose base was just replaced: opens it until both changes are in it. */
  conffile() {
    const file = `${dir}/conf/${scale}`;
    timed(1, () => {
      const end = Date.now() + 10_000;
      for (;;) {
        const text = fs.readFileSync(file, 'utf8');
        if (text.includes('guest = yes') && text.includes('update = yes')) return;
        if (Date.now() > end) throw new Error(`${file} was not merged within 10 s`);
      }
    });
  },
};

workloads[workload]();
