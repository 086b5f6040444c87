// Last lines of a test run: each skipped test with its reason, then the tally. A skip without a reason, or
// any skip in CI, fails the run: there a missing prerequisite is a failure. But not what nobody could install.
const ci = process.env.CI !== undefined && process.env.CI !== '' && process.env.CI !== 'false';

export default class Tally {
  onTestRunEnd(modules, unhandledErrors) {
    const count = { passed: 0, failed: 0, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length > 0) count.failed += 1;
      for (const test of module.children.allTests()) {
        const { state, note } = test.result();
        count[state] = (count[state] ?? 0) + 1;
        if (state !== 'skipped') continue;
        process.stdout.write(`skipped: ${test.fullName}: ${note ?? 'no reason given'}\n`);
        const barred = note?.startsWith('cannot be on this machine: ') ?? false;
        if (note === undefined || (ci && !barred)) process.exitCode = 1;
      }
    }
    count.failed += unhandledErrors.length;
    process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
    if (process.exitCode === 1 && count.failed === 0) process.stdout.write('failed: tests were skipped\n');
  }
}
