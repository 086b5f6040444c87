// The files of the benchmark: looked at before it measures, and left as they were found.
import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { checkWritable, readResult, writeEach } from '../../bench/files.mjs';
import { fileSystemOf } from '../../bench/machine.mjs';
import { withTemp } from '../lib/temp.ts';

test('to be asked whether it can be written changes no file, and leaves none behind', () =>
  withTemp('disk', async (dir) => {
    fs.writeFileSync(`${dir}/old`, 'of an earlier run');
    fs.symlinkSync('target', `${dir}/link`);
    checkWritable({ json: `${dir}/old`, html: `${dir}/new` });
    checkWritable({ json: `${dir}/link`, html: '/dev/null' });
    expect(fs.readFileSync(`${dir}/old`, 'utf8')).toBe('of an earlier run');
    expect(fs.readdirSync(dir).sort()).toEqual(['link', 'old']);
  }));

test('one file for both reports is refused, however it is spelled', () =>
  withTemp('disk', async (dir) => {
    const both = { json: `${dir}/x`, html: `${dir}/./x` };
    expect(() => checkWritable(both)).toThrow(`--json and --html are both ${dir}/x: name two files`);
  }));

test('a result that lacks what reports need is refused in one line', () =>
  withTemp('disk', async (dir) => {
    const file = `${dir}/x.json`;
    const whole = {
      format: 1,
      machine: { date: '' },
      peers: {},
      missing: {},
      rows: [],
      noise: [],
      notes: [],
    };
    fs.writeFileSync(file, JSON.stringify(whole));
    expect(readResult(file)).toEqual(whole);
    for (const part of [{ format: 2 }, { rows: [{}] }, { machine: null }, { notes: 'none' }]) {
      fs.writeFileSync(file, JSON.stringify({ ...whole, ...part }));
      expect(() => readResult(file)).toThrow(/^--from .*: is no result of the bench; name a file that/);
    }
  }));

test('an output that fails keeps no other from being written', () => {
  const written: string[] = [];
  const full = () => {
    throw Object.assign(new Error('write'), { code: 'ENOSPC' });
  };
  const outputs = [
    ['--json x', full],
    ['--html y', () => written.push('y')],
  ];
  expect(writeEach(outputs)).toEqual(['--json x: cannot be written: the file system is full']);
  expect(written).toEqual(['y']);
});

test('a file system has the name that the kernel gives it', () => {
  expect([fileSystemOf('/proc'), fileSystemOf('/sys')]).toEqual(['proc', 'sysfs']);
});
