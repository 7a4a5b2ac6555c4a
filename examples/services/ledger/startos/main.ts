import * as https from 'node:https'
import { sdk } from './sdk'
import { tlsPort, webPort } from './interfaces'
import { settings } from './settings'
import { accounts, readEntry, vault } from './vault'

/** Makes the report from the entries of the vault, over and over. */
const report = `
while :; do
  { echo '<!doctype html><meta charset="utf-8"><title>Ledger</title><h1>Ledger</h1><dl>'
    for f in /vault/*; do
      [ -f "$f" ] && printf '<dt>%s</dt><dd><pre>%s</pre></dd>\\n' "$(basename "$f")" "$(sed 's/&/\\&amp;/g; s/</\\&lt;/g' "$f")"
    done
    echo '</dl>'
  } >/report/index.html.new && mv /report/index.html.new /report/index.html
  sleep "$EVERY" & wait $!
done`

export const main = sdk.setupMain(async ({ effects }) => {
  const every = (await settings.read(s => s.every).const(effects)) ?? 2

  // A certificate of the server's own authority. Read with const, it restarts
  // the service when it is due for renewal.
  const hostnames = ['ledger.startos']
  const [leaf, intermediate] = await sdk.getSslCertificate(effects, hostnames).const()
  const key = await sdk.getSslKey(effects, { hostnames })

  const sub = sdk.SubContainer.of(
    effects,
    { imageId: 'web' },
    sdk.Mounts.of()
      .mountVolume({ volumeId: 'main', subpath: 'report', mountpoint: '/report', readonly: false })
      .mountDependency({ dependencyId: vault, volumeId: 'main', subpath: 'entries', mountpoint: '/vault', readonly: true }),
    'report',
  )

  return sdk.Daemons.of(effects)
    .addDaemon('report', {
      subcontainer: sub,
      exec: { command: ['sh', '-c', report], env: { EVERY: String(every) } },
      ready: {
        display: 'Report',
        fn: () => sdk.healthCheck.runHealthScript(['test', '-s', '/report/index.html'], sub, { message: () => 'The report is there', errorMessage: 'There is no report yet' }),
      },
      requires: [],
    })
    .addDaemon('web', {
      subcontainer: sub,
      exec: { command: ['busybox', 'httpd', '-f', '-p', String(webPort), '-h', '/report'] },
      ready: {
        display: 'Web server',
        fn: () => sdk.healthCheck.checkWebUrl(effects, `http://127.0.0.1:${webPort}/`, { successMessage: 'The report is served', errorMessage: 'The report is not served' }),
      },
      requires: ['report'],
    })
    .addDaemon('balance', {
      subcontainer: null,
      // A daemon of this very process: it lasts until it is told to end.
      exec: {
        fn: (_, abort) =>
          new Promise((resolve, reject) => {
            const server = https.createServer({ cert: leaf + intermediate, key }, async (_request, answer) => {
              const lines = ((await readEntry(effects, accounts).catch(() => null)) ?? '').split('\n').filter(Boolean)
              answer.end(`${lines.reduce((sum, l) => sum + Number(l.split('\t')[1]), 0)}\n`)
            })
            server.once('error', reject)
            server.listen(tlsPort)
            abort.addEventListener('abort', () => {
              server.closeAllConnections()
              server.close(() => resolve(null))
            })
          }),
      },
      ready: {
        display: 'Balance',
        fn: () => sdk.healthCheck.checkPortListening(effects, tlsPort, { successMessage: 'The balance is served', errorMessage: 'The balance is not served' }),
      },
      requires: [],
    })
})
