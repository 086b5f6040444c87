// How far a run is: a bar on a terminal, else a line now and then.
import * as fs from 'node:fs';

const WIDTH = 24;
const QUIET_MS = 20_000;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;

export function createProgress() {
  const terminal = process.stderr.isTTY === true;
  const began = performance.now();
  let said = 0;
  let shown = false;
  const line = (done, all, text) => {
    const passed = (performance.now() - began) / 1000;
    const left = done === 0 ? '' : `, about ${clock((passed / done) * (all - done))} left`;
    return `${String(done).padStart(String(all).length)}/${all} ${clock(passed)}${left}  ${text}`;
  };
  return {
    step(done, all, text) {
      if (terminal) {
        const full = Math.round((WIDTH * done) / all);
        const bar = `${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${line(done, all, text)}`;
        fs.writeSync(2, `\r\x1b[K${bar.slice(0, (process.stderr.columns ?? 80) - 1)}`);
        shown = true;
      } else if (performance.now() - said > QUIET_MS) {
        fs.writeSync(2, `bench: ${line(done, all, text)}\n`);
        said = performance.now();
      }
    },
    end() {
      if (shown) fs.writeSync(2, '\r\x1b[K');
    },
  };
}
