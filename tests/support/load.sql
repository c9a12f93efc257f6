\set id random(1, 100)
BEGIN;
UPDATE accounts SET balance = balance + 1 WHERE id = :id;
SELECT balance FROM accounts WHERE id = :id;
COMMIT;
SELECT count(*) FROM accounts;
