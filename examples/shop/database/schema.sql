CREATE TABLE products (id serial PRIMARY KEY, name text NOT NULL, stock integer NOT NULL CHECK (stock >= 0));
CREATE TABLE orders (
    id serial PRIMARY KEY,
    product integer NOT NULL REFERENCES products,
    quantity integer NOT NULL CHECK (quantity > 0)
);
INSERT INTO products (name, stock) SELECT 'product ' || number, 10 FROM generate_series(1, 50) AS number;
