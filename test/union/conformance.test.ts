// The rules of conformance.ts on plain directories: this proves the rules, before they prove Kasane.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { conformance, populate } from '../conformance/conformance.ts';
import { tracked } from '../lib/cleanup.ts';

for (const parent of ['/var/tmp', '/dev/shm']) {
  conformance(`a plain directory in ${parent}`, async () => {
    const dir = fs.mkdtempSync(`${parent}/kasane-test-`);
    tracked(() => fs.promises.rm(dir, { recursive: true, force: true }));
    fs.chmodSync(dir, 0o755);
    const plain = path.join(dir, 'plain');
    fs.mkdirSync(plain);
    await populate(plain);
    return plain;
  });
}
