'use strict'
const assert = require('node:assert/strict')
const { test } = require('node:test')
const { exver } = require('../dist/index.js')
const { ExtendedVersion, Version, VersionRange, parseTarget } = exver

const version = text => ExtendedVersion.parse(text)
const range = text => VersionRange.parse(text)

test('versions parse and print', () => {
  for (const text of ['1.0:0', '#flavor:1.0:0-alpha.1', '26.0.0-rc.1:0', '1.2.3.4.5:6.7', '1-a-b.c-:0', '1-0:0']) {
    assert.equal(String(version(text)), text)
  }
  assert.equal(String(version('01.2:03')), '1.2:3')
  for (const text of ['1.0', '#knots:1.0', '', '#Knots:1:0', '#k2:1:0', '1:0:0', '1..2:0', '1.2:', 'v1:0', ' 1:0', '1:0 ', '1-:0', '1-a..b:0', '1-a_b:0']) {
    assert.throws(() => version(text), /invalid version/, text)
  }
})

test('versions compare', () => {
  for (const [a, b, order] of [
    ['1.0.0:0', '1:0.0.0', 'equal'],
    ['1.0:0-alpha.1', '1.0:0', 'less'],
    ['1.0-alpha.9:0', '1.0-alpha.10:0', 'less'],
    ['1.0-1:0', '1.0-alpha:0', 'less'],
    ['1.0-alpha:0', '1.0-alpha.0:0', 'less'],
    ['1.0-Beta:0', '1.0-alpha:0', 'less'],
    ['1.0-rc:0', '1.0:0', 'less'],
    ['1.2:9', '1.10:0', 'less'],
    ['1:2', '1:10', 'less'],
    ['#a:1:0', '#b:2:0', null],
    ['#a:1:0', '1:0', null],
  ]) {
    assert.equal(version(a).compare(version(b)), order, `${a} ${b}`)
    const back = { less: 'greater', equal: 'equal' }[order] ?? null
    assert.equal(version(b).compare(version(a)), back)
    assert.equal(version(a).equals(version(b)), order === 'equal')
    assert.equal(version(a).lessThan(version(b)), order === 'less')
    assert.equal(version(a).lessThanOrEqual(version(b)), order !== null)
    assert.equal(version(b).greaterThan(version(a)), order === 'less')
    assert.equal(version(b).greaterThanOrEqual(version(a)), order !== null)
  }
  assert.equal(version('#a:9:0').compareLexicographic(version('#b:1:0')), 'less')
  assert.equal(version('1:0').compareForSort(version('#a:1:0')), -1)
})

test('ranges parse and print', () => {
  for (const [text, printed] of [
    ['1', '>=1:0 && <2:0'],
    ['^1.2.3', '>=1.2.3:0 && <2:0'],
    ['^0.2.3', '>=0.2.3:0 && <0.3:0'],
    ['^0.0.3', '>=0.0.3:0 && <0.0.4:0'],
    ['^0', '>=0:0 && <1:0'],
    ['^0.0.0:5', '>=0.0.0:5 && <1:0'],
    ['^1.2.3-beta.1:4', '>=1.2.3-beta.1:4 && <2-beta.1:0'],
    ['~1.2.3', '>=1.2.3:0 && <1.3:0'],
    ['~1', '>=1:0 && <1.1:0'],
    ['~1.0.5', '>=1.0.5:0 && <1.1:0'],
    ['~0.1.2', '>=0.1.2:0 && <0.1.3:0'],
    ['~0', '>=0:0 && <0.1:0'],
    ['~1.2-rc.1', '>=1.2-rc.1:0 && <1.3-rc.1:0'],
    ['^#knots:29:0', '>=#knots:29:0 && <#knots:30:0'],
    ['#:1.0', '>=1.0:0 && <2:0'],
    ['>=1:0<2:0', '>=1:0 && <2:0'],
    ['>=1:0 || <2:0 && =3', '(>=1:0 || <2:0) && =3:0'],
    ['=1 && =2 || =3 =4', '(=1:0 && =2:0) || =3:0 || =4:0'],
    ['!(>=1:0 <2:0)', '!(>=1:0 && <2:0)'],
    ['!=1', '!=1:0'],
    ['*', '*'],
    ['!', '!'],
    ['! || =1', '! || =1:0'],
    ['#knots', '#knots'],
    ['!#', '!#'],
    [' >=1\n<2\t', '>=1:0 && <2:0'],
  ]) {
    assert.equal(String(range(text)), printed, text)
    assert.ok(range(String(range(text))).equals(range(text)), text)
  }
  for (const text of ['', ' ', '()', '(1', '&& 1', '==1', '1.2.3.x', '1 junk', '1)', '1 ||', '>=1:0,<2', '^1.2.3:', '#Knots']) {
    assert.throws(() => range(text), /invalid version/, text)
  }
})

test('ranges are satisfied', () => {
  for (const [v, r, yes] of [
    ['2-beta.123:0', '>1.2.3:4', true],
    ['1.2.3:4.1', '>1.2.3:4', true],
    ['1.2.3:4', '>1.2.3:4', false],
    ['1.2.3:0', '=1.2.3', true],
    ['1.2.3:1', '=1.2.3', false],
    ['1.0.0:0', '=1', true],
    ['1.2.9:7', '~1.2', true],
    ['1.3:0', '~1.2', false],
    ['1.3:0', '!~1.2', true],
    ['2.0-alpha:0', '^1.2.3', true],
    ['2-alpha.0:0', '^1-alpha.5', true],
    ['2-alpha.9:0', '^1-alpha.5', false],
    ['1.0-rc.1:0', '>=1.0', false],
    ['1.0-rc.1:0', '<1.0', true],
    ['1.0-rc.1:0', '>=1.0-beta', true],
    ['1.0:0-alpha.1', '>=1.0', false],
    ['1.0:0-alpha.1', '>=1.0:0-alpha', true],
    ['#knots:29.1:0', '^29', false],
    ['#knots:29.1:0', '^#knots:29', true],
    ['#knots:29.1:0', '#knots', true],
    ['#knots:29.1:0', '#', false],
    ['#knots:29.1:0', '!=29.1', true],
    ['#knots:29.1:0', '!(<29)', true],
    ['1:0', '#', true],
    ['1:0', '!#', false],
    ['#a:1:0', '!#b && !#c', true],
    ['5:0', '=1 || =2 >3', true],
    ['1:0', '=1 || =2 && =3', false],
    ['5:0', '!', false],
    ['5:0', '*', true],
  ]) {
    assert.equal(version(v).satisfies(range(r)), yes, `${v} in ${r}`)
    assert.equal(range(r).satisfiedBy(version(v)), yes)
    assert.equal(version(v).satisfies(range(r).normalize()), yes, `${v} in ${range(r).normalize()}`)
    assert.equal(version(v).satisfies(range(r).not()), !yes)
  }
  assert.ok(Version.parse('0.4.0-beta.10').satisfies(range('>=0.3.5:0 <=0.4.0-beta.10')))
})

test('satisfiable and intersects', () => {
  for (const text of ['>=2:0 && <1:0', '#a && #b', '#knots && >=1', '!', '!*']) assert.equal(range(text).satisfiable(), false, text)
  for (const text of ['>1:0 && <1:0.1', '>=1:0 && <1:5', '*', '!#a', '=1']) assert.equal(range(text).satisfiable(), true, text)
  for (const [a, b, yes] of [
    ['^#knots:29:0', '<=29.3:10', false],
    ['>=#bitcoin:1:0', '<#bitcoin:5:0', true],
    ['<=2', '>=2', true],
    ['>=2', '<2', false],
    ['!=1', '=1', false],
    ['#a', '!#a', false],
    ['!#a', '>=1', true],
  ]) {
    assert.equal(range(a).intersects(range(b)), yes, `${a} and ${b}`)
    assert.equal(range(b).intersects(range(a)), yes)
  }
})

test('normalize keeps the set', () => {
  for (const [text, normal] of [
    ['>=1 >=2 <3', '>=2:0 && <3:0'],
    ['=1 || >1', '>=1:0'],
    ['>=1 <=1', '=1:0'],
    ['>=2 && <1', '!'],
    ['>=1 || !(>=1)', '*'],
    ['#a || !#a', '*'],
    ['#a', '#a'],
    ['!#a', '!#a'],
  ]) {
    assert.equal(String(range(text).normalize()), normal, text)
    assert.ok(range(text).normalize().equals(range(text)))
  }
  assert.ok(!range('=1').equals(range('=2')))
})

test('targets', () => {
  assert.equal(parseTarget(null), null)
  assert.ok(parseTarget('1:0') instanceof ExtendedVersion)
  assert.ok(parseTarget('=1:0') instanceof VersionRange)
  assert.throws(() => parseTarget(5))
})
